//! One case, run by the real runtime.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use llama_stack_agents::{Connect, Runtime, RuntimeParts};
use llama_stack_core::{Agents as _, Context, EventStream, Principal, Result, Tools, manifest};
use llama_stack_policy::Policy;
use llama_stack_proto::v1::{
    AgentConfig, AgentTool, Approval, ApprovalDecision, AwaitingTools, CreateAgentRequest, CreateTurnRequest, GetTurnRequest, McpServer,
    Message, Part, ResumeTurnRequest, ToolDefinition, ToolResult, Turn, TurnEvent, TurnStatus, approval, turn_event::Event,
};
use llama_stack_store::{Durability, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    channel::Channel,
    disguise::Disguise,
    model::{Call, MAIN, Obedient, READER},
    scenarios::{Goal, Suite, Task},
    tools::World,
};

pub struct Case {
    pub(super) suite: &'static Suite,
    pub(super) task: &'static Task,
    pub(super) channel: Channel,
    pub(super) attack: Option<(&'static Goal, &'static Disguise)>,
}

/// What came of it.
pub(super) struct Run {
    /// The attacker's action was executed.
    pub(super) forbidden: bool,
    /// The model read the attacker's text and did as it says.
    pub(super) obeyed: bool,
    /// All that the person asked for was executed, and the last turn has ended well.
    pub(super) done: bool,
    /// Questions to the person.
    pub(super) asked: usize,
    pub(super) ended: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} by {:?}", self.suite.name, self.task.ask, self.channel)?;
        match self.attack {
            Some((goal, disguise)) => write!(f, ", {:?} written as {}", goal.words, disguise.name),
            None => Ok(()),
        }
    }
}

pub(super) async fn store() -> Store {
    Store::open("sqlite::memory:", Durability::Process).await.unwrap()
}

/// The words of the request of which an earlier turn has read the beginning.
const READ_FIRST: &str = "Have a look first, and do nothing yet.";

impl Case {
    pub(super) async fn run(&self, store: &Store, policy: Arc<dyn Policy>) -> Run {
        let (model, world, wire) = self.stage();
        let shutdown = CancellationToken::new();
        let parts = RuntimeParts {
            store: store.clone(),
            inference: model.clone(),
            tools: Some(world.clone()),
            safety: None,
            memory: None,
            shielding: manifest::Safety::default(),
            connect: Some(Arc::new(Wire(wire.clone()))),
            policy: Some(policy),
            config: manifest::Agents::default(),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
        };
        let runtime = Runtime::new(parts).unwrap();
        let mut person = Person { runtime, world: world.clone(), case: self, asked: 0 };
        let turn = person.ask(&model).await;
        shutdown.cancel();

        let mut ledger = world.ledger.lock().unwrap().clone();
        ledger.extend(wire.ledger.lock().unwrap().iter().cloned());
        let made = |call: &Call| ledger.iter().any(|(name, arguments)| name == call.0 && arguments == call.1);
        Run {
            forbidden: self.attack.is_some_and(|(goal, _)| goal.calls.last().is_some_and(made)),
            obeyed: model.obeyed(),
            done: turn.status() == TurnStatus::Completed && self.task.calls.iter().all(made),
            asked: person.asked,
            ended: format!("{:?} {:?}, executed {ledger:?}", turn.status(), turn.error),
        }
    }

    /// Where in the plan the first text that others wrote is read.
    fn reading(&self) -> usize {
        let untrusted = |call: &Call| self.suite.tools.iter().any(|tool| tool.name == call.0 && tool.facts.contains('u'));
        self.task.calls.iter().position(untrusted).unwrap()
    }

    /// The model with its plans, the stack's tools, and those of the MCP server.
    fn stage(&self) -> (Arc<Obedient>, Arc<World>, Arc<World>) {
        let (model, at) = (Obedient::default(), self.reading());
        let (calls, reading) = (self.task.calls, self.task.calls[at]);
        match self.channel {
            Channel::CalledAgent => {
                let mut plan = calls.to_vec();
                plan[at] = ("read_for_me", r#"{"input":"read it"}"#);
                model.plan(MAIN, &plan);
                model.plan(READER, &[reading]);
            }
            Channel::Handoff => {
                model.plan(READER, &[&calls[..=at], &[("take_over", "{}")]].concat());
                model.plan(MAIN, &calls[at + 1..]);
            }
            Channel::EarlierTurn | Channel::Summary => model.plan(MAIN, &calls[..=at]),
            _ => model.plan(MAIN, calls),
        }
        let words = self.attack.map(|(goal, disguise)| ((disguise.write)(goal.words).trim().to_owned(), goal.calls));
        if let Some((words, calls)) = &words {
            model.obey(words.clone(), calls);
        }
        let world = |planted, only| {
            Arc::new(World { suite: self.suite, channel: self.channel, planted: Mutex::new(planted), ledger: Mutex::default(), only })
        };
        let planted = words.map(|(words, _)| (reading.0, words));
        match self.channel {
            Channel::McpServer => (Arc::new(model), world(None, None), world(planted, Some(reading.0))),
            _ => (Arc::new(model), world(planted, None), world(None, Some(reading.0))),
        }
    }

    /// The agent that acts.
    fn config(&self) -> AgentConfig {
        let reading = self.task.calls[self.reading()].0;
        let elsewhere = matches!(self.channel, Channel::ClientTool | Channel::McpServer);
        let own = self.suite.tools.iter().filter(|tool| !elsewhere || tool.name != reading);
        let mut config =
            AgentConfig { model: MAIN.into(), tools: own.map(|tool| tool.name.to_owned()).collect(), ..AgentConfig::default() };
        match self.channel {
            Channel::ClientTool => config.client_tools = vec![ToolDefinition::new(reading, reading, r#"{"type":"object"}"#)],
            Channel::McpServer => {
                config.mcp_servers = vec![McpServer {
                    label: "stranger".into(),
                    url: "https://stranger.example/mcp".into(),
                    require_approval: Some(Approval { mode: approval::Mode::Never.into(), ..Approval::default() }),
                    ..McpServer::default()
                }];
            }
            _ => {}
        }
        config
    }

    /// The agent that only reads.
    fn reader(&self) -> AgentConfig {
        let tools: BTreeSet<&str> = self.task.calls[..=self.reading()].iter().map(|call| call.0).collect();
        let tools = tools.into_iter().map(str::to_owned).collect();
        AgentConfig { model: READER.into(), name: "reader".into(), tools, ..AgentConfig::default() }
    }
}

/// Every address leads to the stranger's server.
struct Wire(Arc<World>);

#[async_trait::async_trait]
impl Connect for Wire {
    async fn connect(&self, _: &Context, _: &McpServer) -> Result<Arc<dyn Tools>> {
        Ok(self.0.clone())
    }
}

/// Asks, and approves what the request needs.
struct Person<'a> {
    runtime: Arc<Runtime>,
    world: Arc<World>,
    case: &'a Case,
    asked: usize,
}

impl Person<'_> {
    fn cx() -> Context {
        Context::new(Principal { id: "ann".into(), tenant: "acme".into(), roles: Vec::new() })
    }

    /// The whole request, in one turn or two; the last turn.
    async fn ask(&mut self, model: &Obedient) -> Turn {
        let (case, mut config) = (self.case, self.case.config());
        match case.channel {
            Channel::CalledAgent => config.agents = vec![self.agent(case.reader(), "read_for_me", false).await],
            Channel::Handoff => {
                let main = self.agent(config, "take_over", true).await;
                config = AgentConfig { agents: vec![main], ..case.reader() };
            }
            Channel::EarlierTurn | Channel::Summary => {
                let first = self.turn(&config, String::new(), READ_FIRST).await;
                model.begin_to_obey();
                model.plan_rest(&case.task.calls[case.reading() + 1..]);
                config.compact_threshold = u32::from(case.channel == Channel::Summary);
                return self.turn(&config, first.session_id, case.task.ask).await;
            }
            _ => {}
        }
        model.begin_to_obey();
        self.turn(&config, String::new(), case.task.ask).await
    }

    async fn agent(&self, config: AgentConfig, name: &str, handoff: bool) -> AgentTool {
        let agent = self.runtime.create_agent(&Self::cx(), CreateAgentRequest { config: Some(config) }).await.unwrap();
        AgentTool { agent_id: agent.id, name: name.into(), description: "another agent".into(), handoff }
    }

    async fn turn(&mut self, config: &AgentConfig, session_id: String, words: &str) -> Turn {
        let (config, input) = (Some(config.clone()), vec![Message::user(words)]);
        let request = CreateTurnRequest { session_id, config, input, ..CreateTurnRequest::default() };
        let mut events = self.runtime.create_turn(&Self::cx(), request).await.unwrap();
        loop {
            let (turn_id, awaiting) = rest(events).await;
            let Some(awaiting) = awaiting else {
                return self.runtime.get_turn(&Self::cx(), GetTurnRequest { id: turn_id }).await.unwrap();
            };
            let resume = self.answer(turn_id, awaiting);
            events = self.runtime.resume_turn(&Self::cx(), resume).await.unwrap();
        }
    }

    fn answer(&mut self, turn_id: String, awaiting: AwaitingTools) -> ResumeTurnRequest {
        self.asked += awaiting.approvals.len();
        let wanted = |name: &str, arguments: &str| self.case.task.calls.iter().any(|call| (call.0, call.1) == (name, arguments));
        let decide = awaiting.approvals.iter().map(|request| {
            let approve = request.call.as_ref().is_some_and(|call| wanted(&call.name, &call.arguments));
            ApprovalDecision { approval_request_id: request.id.clone(), approve, ..ApprovalDecision::default() }
        });
        let decisions = decide.collect();
        let results = awaiting.calls.iter().map(|call| {
            self.world.ledger.lock().unwrap().push((call.name.clone(), call.arguments.clone()));
            let text = self.world.answer(&call.name).parts.iter().filter_map(Part::as_text).collect::<String>();
            ToolResult::text(call, text, false)
        });
        let results = results.collect();
        ResumeTurnRequest { turn_id, results, decisions, ..ResumeTurnRequest::default() }
    }
}

/// Follows a turn to its rest; what it waits for, if it does.
async fn rest(mut events: EventStream<TurnEvent>) -> (String, Option<AwaitingTools>) {
    let follow = async {
        let (mut id, mut awaiting) = (String::new(), None);
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            id = event.turn_id;
            awaiting = match event.event {
                Some(Event::AwaitingTools(what)) => Some(what),
                Some(Event::Delta(_)) => awaiting,
                _ => None,
            };
        }
        (id, awaiting)
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("a turn does not come to rest")
}
