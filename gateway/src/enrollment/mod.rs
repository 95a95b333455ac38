//! `Enrollment`: being written.
