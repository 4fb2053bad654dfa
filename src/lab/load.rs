//! Many pages.
