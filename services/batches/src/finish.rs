//! The end of a batch: its answers, in the order of the input, become two files of its owner.

use std::sync::Arc;

use llama_stack_core::{EventStream, Result};
use llama_stack_proto::v1::{Batch, BatchStatus, FileHeader, UploadFileRequest, upload_file_request::Message};
use llama_stack_store::LineResults;

use crate::job::Job;

/// Rows that are read at once.
const PAGE: u32 = 200;
const PURPOSE: &str = "batch_output";

impl Job {
    /// Writes the files, then the last status. A crash in between writes a file again; it is in the list of files then,
    /// and no batch names it.
    pub(crate) async fn finish(&self, mut batch: Batch, status: BatchStatus) -> Result<()> {
        if batch.output_file_id.is_empty() {
            batch.output_file_id = self.write(&batch, false).await?;
            batch = self.put(&batch).await?;
        }
        if batch.error_file_id.is_empty() {
            batch.error_file_id = self.write(&batch, true).await?;
        }
        self.end(batch, status).await
    }

    /// The file's id; empty where there is nothing to write.
    async fn write(&self, batch: &Batch, failed: bool) -> Result<String> {
        let first = self.batcher.store.batch_results(&self.held, LineResults { failed, after: 0, limit: 1 }).await?;
        if first.is_empty() {
            return Ok(String::new());
        }
        let header = FileHeader {
            filename: format!("{}_{}.jsonl", batch.id, if failed { "error" } else { "output" }),
            media_type: "application/jsonl".into(),
            purpose: PURPOSE.into(),
            expires_after_seconds: batch.output_expires_after_seconds,
        };
        let (batcher, held) = (Arc::clone(&self.batcher), self.held.clone());
        let messages: EventStream<UploadFileRequest> = Box::pin(async_stream::try_stream! {
            yield UploadFileRequest { message: Some(Message::Header(header)) };
            let mut after = 0;
            loop {
                let results = batcher.store.batch_results(&held, LineResults { failed, after, limit: PAGE }).await?;
                let Some(last) = results.last() else { break };
                after = last.line;
                let mut data = Vec::with_capacity(results.iter().map(|result| result.body.len() + 1).sum());
                for result in &results {
                    data.extend_from_slice(&result.body);
                    data.push(b'\n');
                }
                yield UploadFileRequest { message: Some(Message::Data(data)) };
            }
        });
        Ok(self.batcher.files.upload_file(&self.cx, messages).await?.id)
    }
}
