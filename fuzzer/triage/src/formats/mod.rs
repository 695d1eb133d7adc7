//! The forms of a report: each a function from the report to text.

mod html;
mod lkml;
mod sarif;
mod text;
mod trace;
mod wrap;

use thiserror::Error;

pub use self::{
    html::html,
    lkml::{Addressees, Mail, lkml},
    sarif::sarif,
    text::text,
};
use crate::Report;

/// Why a report cannot be written in a form.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The template.
    #[error("cannot fill the page's template")]
    Template(#[from] askama::Error),
    /// The JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes the report as JSON, as it is.
///
/// # Errors
///
/// It has no JSON.
pub fn json(report: &Report) -> Result<String, FormatError> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

#[cfg(test)]
mod tests;
