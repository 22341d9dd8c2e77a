//! Server-sent events of an answer, as clients read them.

use reqwest::Response;
use serde_json::Value;

/// The events of an answer, in order, without `[DONE]`; and whether that came.
pub(super) async fn events(mut answer: Response) -> Result<(Vec<Value>, bool), String> {
    let (mut buffer, mut events, mut done) = (Vec::new(), Vec::new(), false);
    while let Some(chunk) = answer.chunk().await.map_err(|error| format!("the stream broke: {error:?}"))? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event).into_owned();
            for data in event.lines().filter_map(|line| line.strip_prefix("data: ")) {
                match data {
                    "[DONE]" => done = true,
                    data => events.push(serde_json::from_str(data).map_err(|error| format!("no JSON in {data:?}: {error}"))?),
                }
            }
        }
    }
    Ok((events, done))
}

/// What a Response says.
pub(super) fn output_text(response: &Value) -> String {
    let items = response["output"].as_array().into_iter().flatten();
    let parts = items.filter(|item| item["type"] == "message").filter_map(|item| item["content"].as_array()).flatten();
    parts.filter_map(|part| part["text"].as_str()).collect()
}
