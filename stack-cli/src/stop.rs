//! `llama-stack stop`: ends a stack of this machine, as Ctrl-C does.

use std::time::{Duration, Instant};

use llama_stack_core::{Code, Error, Result};
use serde_json::json;

use crate::{args::StopArgs, home::home, output::Output, running::Running};

/// How often a process is looked at that is to end.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: StopArgs, output: &Output) -> Result<()> {
    let home = home(args.home.home)?;
    let mut stacks = Running::all(&home);
    let mut names: Vec<String> = stacks.iter().map(|stack| stack.name.clone()).collect();
    names.dedup();
    if let Some(name) = &args.name {
        stacks.retain(|stack| stack.name == *name);
        if stacks.is_empty() {
            let there = if names.is_empty() { "none does".to_owned() } else { names.join(", ") };
            return Err(Error::not_found(format!("no stack {name:?} runs with the home {}; running: {there}", home.display())));
        }
    } else if names.len() > 1 && !args.all {
        return Err(Error::invalid("name", format!("several stacks run: name one of {}, or give --all", names.join(", "))));
    } else if stacks.is_empty() {
        return Err(Error::not_found(format!("no stack runs with the home {}; --home or LLAMA_STACK_HOME name another", home.display())));
    }
    let mut left: Vec<(Code, &Running, String)> = Vec::new();
    let mut asked = Vec::new();
    for stack in &stacks {
        if stack.interrupt() || !stack.is_alive() {
            asked.push(stack);
            continue;
        }
        let why = "cannot be stopped from here: it belongs to another user or container; stop it as them, or there";
        left.push((Code::PermissionDenied, stack, why.into()));
    }
    let (until, patience) = (Instant::now() + Duration::from_secs(args.timeout), args.timeout);
    for stack in asked {
        let _working = output.working(&format!("{} finishes what is under way", stack.name));
        while stack.is_alive() {
            if Instant::now() >= until {
                let why = format!(
                    "has not ended within {patience} s; wait longer with --timeout, or end it with kill -9: turns go on at the next start"
                );
                left.push((Code::DeadlineExceeded, stack, why));
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let mut names: Vec<&str> = stacks.iter().map(|stack| stack.name.as_str()).collect();
    names.dedup();
    names.retain(|name| left.iter().all(|(_, stack, _)| stack.name != *name));
    if !names.is_empty() {
        output.result(&json!({ "stopped": names }), |_| names.iter().map(|name| format!("{name} has stopped\n")).collect())?;
    }
    let Some((code, ..)) = left.first() else { return Ok(()) };
    let told: Vec<String> = left.iter().map(|(_, stack, why)| format!("{} (process {}) {why}", stack.name, stack.pid)).collect();
    Err(Error::new(*code, told.join("; ")))
}
