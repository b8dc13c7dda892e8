//! Build and test commands.
