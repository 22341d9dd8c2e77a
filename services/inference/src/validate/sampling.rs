//! Ranges of the sampling parameters. A comparison with NaN is false, so every range refuses it.

use std::ops::RangeInclusive;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::SamplingParams;

const MAX_STOPS: usize = 16;

/// `least`: of tokens that may be asked for.
pub(super) fn check(params: Option<&SamplingParams>, least: u32) -> Result<()> {
    let Some(params) = params else { return Ok(()) };
    within("temperature", params.temperature, 0.0..=2.0)?;
    within("min_p", params.min_p, 0.0..=1.0)?;
    within("frequency_penalty", params.frequency_penalty, -2.0..=2.0)?;
    within("presence_penalty", params.presence_penalty, -2.0..=2.0)?;
    if let Some(top_p) = params.top_p.filter(|value| !(*value > 0.0 && *value <= 1.0)) {
        return Err(wrong("top_p", format_args!("{top_p}"), "greater than 0, and at most 1"));
    }
    if let Some(penalty) = params.repetition_penalty.filter(|value| !(*value > 0.0 && value.is_finite())) {
        return Err(wrong("repetition_penalty", format_args!("{penalty}"), "a finite number greater than 0"));
    }
    for (name, value, least) in [("top_k", params.top_k, 1), ("max_tokens", params.max_tokens, least)] {
        if value.is_some_and(|value| value < least) {
            return Err(wrong(name, format_args!("0"), "at least 1, or left out"));
        }
    }
    stops(&params.stop)?;
    for (token, bias) in &params.logit_bias {
        if !(-100.0..=100.0).contains(bias) {
            return Err(wrong(&format!("logit_bias[{token}]"), format_args!("{bias}"), "-100 to 100"));
        }
    }
    Ok(())
}

fn stops(stops: &[String]) -> Result<()> {
    if stops.len() > MAX_STOPS {
        let message = format!("stop has {} strings; it must have at most {MAX_STOPS}", stops.len());
        return Err(Error::invalid("sampling.stop", message));
    }
    match stops.iter().position(String::is_empty) {
        Some(index) => Err(wrong(&format!("stop[{index}]"), format_args!("empty"), "at least 1 character")),
        None => Ok(()),
    }
}

fn within(name: &str, value: Option<f32>, range: RangeInclusive<f32>) -> Result<()> {
    match value {
        Some(value) if !range.contains(&value) => {
            Err(wrong(name, format_args!("{value}"), &format!("{} to {}", range.start(), range.end())))
        }
        _ => Ok(()),
    }
}

fn wrong(name: &str, is: std::fmt::Arguments<'_>, right: &str) -> Error {
    Error::invalid(format!("sampling.{name}"), format!("{name} is {is}; it must be {right}"))
}
