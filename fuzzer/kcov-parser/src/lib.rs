//! KCOV.
