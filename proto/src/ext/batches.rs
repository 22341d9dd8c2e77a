use crate::v1::{BatchStatus, BatchUsage};

impl BatchUsage {
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl BatchStatus {
    /// As OpenAI's API writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}
