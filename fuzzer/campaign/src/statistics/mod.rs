//! The numbers of a campaign: what is counted, how it adds up, and the lines that show it.
//!
//! ```text
//! clients ──user stats──▶ broker ──▶ monitor ──▶ stats.jsonl, progress
//!                            └─────▶ any other monitor of LibAFL
//! ```

mod line;
mod monitor;
mod table;

#[cfg(test)]
pub(crate) use self::monitor::resident_kib;
pub(crate) use self::monitor::{CampaignMonitor, INTERVAL};
pub use self::{
    line::{StatsLine, Summary},
    table::{OverClients, STATISTICS, Shown, StatisticRow, Statistics},
};
