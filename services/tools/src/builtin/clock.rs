use jiff::Timestamp;
use llama_stack_core::{Context, Error, ids};
use llama_stack_proto::v1::OnInterrupt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Tool, ToolFailure};

/// The time, anywhere. Zones are bundled, so it works on machines without a zone database.
pub(crate) struct Clock;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// An IANA time zone, for example Europe/Berlin. Default: UTC.
    #[serde(default)]
    timezone: Option<String>,
}

#[async_trait::async_trait]
impl Tool for Clock {
    type Args = Args;
    const NAME: &'static str = "clock";
    const DESCRIPTION: &'static str = "Tells the current date, time and day of the week in a time zone.";

    async fn call(&self, _cx: &Context, args: Args) -> Result<String, ToolFailure> {
        let now = ids::now();
        let now = Timestamp::new(now.seconds, 0).map_err(|error| Error::internal("the system clock is out of range").with_source(error))?;
        tell(now, args.timezone.as_deref().filter(|zone| !zone.is_empty()).unwrap_or("UTC"))
    }

    fn on_interrupt(&self) -> OnInterrupt {
        OnInterrupt::Retry
    }
}

fn tell(now: Timestamp, zone: &str) -> Result<String, ToolFailure> {
    let there = now.in_tz(zone).map_err(|_| format!("no time zone {zone:?}: use an IANA name, for example Europe/Berlin or UTC"))?;
    Ok(format!("{} ({})", there, there.strftime("%A, %-d %B %Y, %H:%M")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_its_own_time_and_day() {
        let now = "2026-07-04T22:30:00Z".parse().unwrap();
        let told = |zone| tell(now, zone).unwrap();
        assert_eq!(told("UTC"), "2026-07-04T22:30:00+00:00[UTC] (Saturday, 4 July 2026, 22:30)");
        assert_eq!(told("Europe/Berlin"), "2026-07-05T00:30:00+02:00[Europe/Berlin] (Sunday, 5 July 2026, 00:30)");
    }

    #[test]
    fn an_unknown_zone_is_told_with_an_example() {
        let Err(ToolFailure::Told(text)) = tell(Timestamp::UNIX_EPOCH, "Berlin time") else { panic!("it was accepted") };
        assert!(text.contains("Europe/Berlin"));
    }
}
