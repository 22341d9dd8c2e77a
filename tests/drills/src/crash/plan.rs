//! What a turn is to do, in its own text: so that the model's answers are a function of the conversation alone, and a
//! turn that is taken up again gets the same ones.
//!
//! ```text
//! turn 17 plan rf;c      first a call of each of two tools at once, then one that the client runs, then the answer
//! turn 17: ok cut ok     the answer: what became of each call
//! ```

use std::fmt;

use llama_stack_proto::v1::ToolDefinition;
use rand::{Rng, rngs::StdRng};
use serde_json::json;

/// Whoever runs a call, and what may be done with it after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Honours the idempotency key, and may be called again.
    Retried,
    /// Must not be called again.
    Once,
    /// The client's own.
    Client,
}

impl Tool {
    const ALL: [Tool; 3] = [Tool::Retried, Tool::Once, Tool::Client];

    fn letter(self) -> char {
        match self {
            Tool::Retried => 'r',
            Tool::Once => 'o',
            Tool::Client => 'c',
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Retried => "retried",
            Tool::Once => "once",
            Tool::Client => "client",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    pub(crate) fn definition(self) -> ToolDefinition {
        ToolDefinition::new(self.name(), "Does its work, and says so", parameters().to_string())
    }
}

/// The schema of every tool's arguments.
pub(crate) fn parameters() -> serde_json::Value {
    let number = json!({ "type": "integer" });
    json!({ "type": "object", "properties": { "turn": number, "call": number }, "required": ["turn", "call"] })
}

/// One turn's work: rounds of calls, each of them all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) rounds: Vec<Vec<Tool>>,
}

/// A call of a plan: the place of its tool among all of the plan's.
pub(crate) struct Call {
    pub(crate) tool: Tool,
    pub(crate) index: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds: Vec<String> = self.rounds.iter().map(|round| round.iter().map(|tool| tool.letter()).collect()).collect();
        write!(f, "turn {} plan {}", self.number, rounds.join(";"))
    }
}

impl Plan {
    /// Up to three rounds of up to three calls.
    pub(crate) fn random(number: u64, random: &mut StdRng) -> Self {
        let tool = |random: &mut StdRng| match random.random_range(0..10) {
            0 => Tool::Client,
            1..=4 => Tool::Once,
            _ => Tool::Retried,
        };
        let round = |random: &mut StdRng| (0..random.random_range(1..=3)).map(|_| tool(random)).collect();
        Self { number, rounds: (0..random.random_range(0..=3)).map(|_| round(random)).collect() }
    }

    /// Up to two rounds of the client's own tool.
    pub(crate) fn for_client(number: u64, random: &mut StdRng) -> Self {
        let round = |random: &mut StdRng| vec![Tool::Client; random.random_range(1..=2)];
        Self { number, rounds: (0..random.random_range(0..=2)).map(|_| round(random)).collect() }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, rounds) = text.strip_prefix("turn ")?.split_once(" plan ")?;
        let tool = |letter: char| Tool::ALL.into_iter().find(|tool| tool.letter() == letter);
        let rounds = rounds.split(';').filter(|round| !round.is_empty()).map(|round| round.chars().map(tool).collect());
        Some(Self { number: number.parse().ok()?, rounds: rounds.collect::<Option<_>>()? })
    }

    /// The calls of a round; empty after the last.
    pub(crate) fn round(&self, n: usize) -> Vec<Call> {
        let before: usize = self.rounds.iter().take(n).map(Vec::len).sum();
        let tools = self.rounds.get(n).into_iter().flatten();
        tools.enumerate().map(|(place, tool)| Call { tool: *tool, index: before + place }).collect()
    }

    pub(crate) fn calls(&self) -> impl Iterator<Item = Call> {
        self.rounds.iter().flatten().enumerate().map(|(index, tool)| Call { tool: *tool, index })
    }

    pub(crate) fn arguments(&self, call: usize) -> String {
        json!({ "turn": self.number, "call": call }).to_string()
    }

    /// The id that the model gives the call: the same in every attempt.
    pub(crate) fn call_id(&self, call: usize) -> String {
        format!("call_{}_{call}", self.number)
    }

    /// The model's last words, after these results.
    pub(crate) fn answer(&self, results: &[String]) -> String {
        let words: Vec<String> = results.iter().enumerate().map(|(index, result)| self.word(index, result)).collect();
        format!("turn {}: {}", self.number, if words.is_empty() { "done".to_owned() } else { words.join(" ") })
    }

    fn word(&self, index: usize, result: &str) -> String {
        if result == done(self.number, index) {
            "ok".into()
        } else if result.contains("may have run") {
            "cut".into()
        } else {
            format!("wrong({result})")
        }
    }

    /// What became of each call, by the model's last words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn read(&self, answer: &str) -> Result<Vec<Outcome>, String> {
        let wrong = || format!("{answer:?} is no answer to \"{self}\"");
        let words = answer.strip_prefix(&format!("turn {}: ", self.number)).ok_or_else(wrong)?;
        if self.rounds.is_empty() {
            return if words == "done" { Ok(Vec::new()) } else { Err(wrong()) };
        }
        let words: Vec<&str> = words.split(' ').collect();
        let calls: Vec<Call> = self.calls().collect();
        if words.len() != calls.len() {
            return Err(wrong());
        }
        let outcome = |(word, call): (&&str, &Call)| match (*word, call.tool) {
            ("ok", _) => Ok(Outcome::Done),
            ("cut", Tool::Once) => Ok(Outcome::CutOff),
            _ => Err(wrong()),
        };
        words.iter().zip(&calls).map(outcome).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The model was told that it may have run.
    CutOff,
}

/// What a tool says when it has done its work.
pub(crate) fn done(number: u64, call: usize) -> String {
    format!("{number}.{call} done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_from_its_text() {
        for text in ["turn 17 plan rc;o", "turn 1 plan "] {
            assert_eq!(Plan::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Plan::parse("turn 1 plan rx"), None);
        let indices: Vec<usize> = Plan::parse("turn 17 plan rc;o").unwrap().round(1).iter().map(|call| call.index).collect();
        assert_eq!(indices, [2]);
    }

    #[test]
    fn only_a_right_answer_is_taken() {
        let plan = Plan::parse("turn 7 plan ro").unwrap();
        let cut = "this call was cut off by a restart and may have run; it was not repeated".to_owned();
        assert_eq!(plan.read(&plan.answer(&[done(7, 0), cut.clone()])), Ok(vec![Outcome::Done, Outcome::CutOff]));
        let wrong = [vec![cut, done(7, 1)], vec![done(7, 1), done(7, 0)], vec![done(7, 0)], vec!["failed".into(), done(7, 1)]];
        for results in wrong {
            assert!(plan.read(&plan.answer(&results)).is_err(), "{results:?}");
        }
    }
}
