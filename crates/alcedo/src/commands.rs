//! The commands, one file each: what is asked of the client or the worker, and how the answer is printed.
//!
//! The top layer of the binary. Rules about lookups, files and settings belong to the crates below; a command only
//! translates.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completion;
#[cfg(feature = "worker")]
pub(crate) mod config;
pub(crate) mod explain;
pub(crate) mod free;
pub(crate) mod get;
pub(crate) mod keys;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod members;
pub(crate) mod pin;
pub(crate) mod pins;
pub(crate) mod question;
pub(crate) mod requests;
pub(crate) mod ring;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod unpin;
pub(crate) mod who;
#[cfg(feature = "worker")]
pub(crate) mod worker;
pub(crate) mod workers;

use alcedo_client::{Builder, Client};

use crate::cli::Globals;
use crate::failure::Failure;
use crate::settings::{Partial, Settings};
use crate::terminal::Terminal;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) terminal: Terminal,
}

impl Context {
    /// A client with the settings of flags, environment and files. It connects when it is first asked something.
    ///
    /// # Errors
    /// A settings file is wrong, or an endpoint is no address.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(self.builder()?.build()?)
    }

    /// The same before it is built, for a command that wants a client of another kind.
    ///
    /// # Errors
    /// A settings file is wrong.
    pub(crate) fn builder(&self) -> Result<Builder, Failure> {
        let given = Partial { endpoints: self.globals.endpoints.clone(), timeout: self.globals.timeout };
        let settings = Settings::load(given, self.globals.config.as_deref())?;
        Ok(Client::builder().endpoints(settings.endpoints).deadline(settings.timeout))
    }
}
