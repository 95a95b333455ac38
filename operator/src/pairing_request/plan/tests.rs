//! Fixtures first; then a table for each stage.
use super::*;
