//! LibAFL feedbacks: lessons of executions, and reasons to keep a plan.

mod counters;
mod loading;
mod offer;
mod scheduling;
mod sites;
mod written;

pub(crate) use self::{
    counters::CountersFeedback,
    loading::LoadingFeedback,
    offer::OfferFeedback,
    scheduling::SchedulingFeedback,
    sites::{NewSiteFeedback, sites_feedbacks},
    written::WrittenFeedback,
};
