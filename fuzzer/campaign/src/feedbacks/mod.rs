//! LibAFL feedbacks: lessons of executions, and reasons to keep a plan.

mod counters;
mod loading;
mod offer;
mod points;
mod ran;
mod scheduling;
mod written;

pub(crate) use self::{
    counters::CountersFeedback,
    loading::LoadingFeedback,
    offer::OfferFeedback,
    points::{NewPointFeedback, points_feedbacks},
    ran::ran,
    scheduling::SchedulingFeedback,
    written::WrittenFeedback,
};
