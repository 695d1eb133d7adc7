//! The description of a client.

use crate::{
    error::StartError,
    kernels::{CampaignKernel, Role},
};

/// A client of a campaign.
pub struct Client<'a, R> {
    /// Its part.
    pub role: Role,
    /// The function that gets it ready; called in its thread.
    pub start: StartClient<'a, R>,
}

/// Gets a client ready, which may take as long as building a kernel does.
pub type StartClient<'a, R> = Box<dyn FnOnce() -> Result<ClientSetup<R>, StartError> + Send + 'a>;

/// The means of a client.
pub struct ClientSetup<R> {
    /// The kernel that its guests run.
    pub kernel: CampaignKernel,
    /// Its guests.
    pub runner: R,
}
