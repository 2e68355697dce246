//! What the configuration means: names and wildcards, properties of destinations, who may do what.
//!
//! Pure values without files, protocol or time. [`config`](crate::config) fills them from files;
//! whoever routes, authorizes or administers asks them.

mod access;
mod directory;
mod name;
mod properties;
mod rights;
mod secret;

pub use access::{ADMIN_GROUP, ADMIN_USER, ALL_GROUP, Access, AdminGrant, Grant, Principal};
pub use directory::{Bridge, Directory, Durable};
pub use name::{DestinationKind, NAME_BYTES_MAX, Pattern};
pub use properties::{Catalogue, OverflowPolicy, Prefetch, Properties, Trace};
pub use rights::{Action, Actions, AdminRight, AdminRights};
pub use secret::{Secret, StoredPassword};

#[cfg(test)]
mod tests;
