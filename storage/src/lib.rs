//! The crash-safe append log of Steadfast.
