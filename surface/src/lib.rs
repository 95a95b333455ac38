//! What a capability takes and answers.
