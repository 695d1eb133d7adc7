//! What executions teach, and what makes one worth keeping.

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
