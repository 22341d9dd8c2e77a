//! What went before a turn: the messages of its ancestors, oldest first.
//!
//! An ancestor's journal is read once; after that its messages are kept for a while, so that the cost of a turn does
//! not grow with its session beyond handing the messages to the model.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use llama_stack_core::{Code, Context, Inference, Result};
use llama_stack_proto::v1::{Message, Part, Turn, step::Step};
use prost::Message as _;

use crate::{
    compact,
    conversation::{answers, compacted, compaction, messages, until_answered},
    runtime::Shared,
};

/// Over all tenants. More than the context of any model is never needed for one session.
const KEPT_BYTES: usize = 64 << 20;
/// What a turn takes besides its messages: itself, its keys, its places in the table and the queue.
const TURN_BYTES: usize = size_of::<Past>() + 512;

/// The messages of turns that were used lately.
pub(crate) struct Histories(Mutex<Kept>);

struct Kept {
    /// Each with its place in `order`.
    turns: HashMap<Key, (u64, Arc<Past>)>,
    /// In the order in which they came: the oldest goes first. A row whose turn has another place is void.
    order: VecDeque<(u64, Key)>,
    next: u64,
    bytes: usize,
    capacity: usize,
}

/// A tenant and a turn's id.
type Key = (String, String);

/// One turn of a history.
pub(crate) struct Past {
    parent: String,
    /// The parent's calls that its input answers.
    answers: HashSet<String>,
    messages: Vec<Message>,
    /// What was before, where this turn summarised it.
    base: Option<Base>,
    bytes: usize,
    /// As a model counts them, once one has.
    tokens: Mutex<Option<(String, usize)>>,
    /// Of the documents that it quotes, those that were deleted; `None` where it quotes none.
    erased: Option<usize>,
}

/// A summary with what was kept beside it, and the provenance of what was summarised.
struct Base {
    messages: Vec<Message>,
    provenance: Vec<String>,
}

/// How much of a history is enough.
pub(crate) struct Bound<'a> {
    pub(crate) inference: &'a dyn Inference,
    pub(crate) cx: &'a Context,
    pub(crate) model: &'a str,
    pub(crate) tokens: usize,
}

/// What was before a turn.
#[derive(Default)]
pub(crate) struct Before {
    pub(crate) messages: Vec<Message>,
    /// The provenance of what stands there only as a summary.
    pub(crate) summarised: BTreeSet<String>,
}

impl Default for Histories {
    fn default() -> Self {
        Self::with_capacity(KEPT_BYTES)
    }
}

impl Histories {
    fn with_capacity(capacity: usize) -> Self {
        Self(Mutex::new(Kept { turns: HashMap::new(), order: VecDeque::new(), next: 0, bytes: 0, capacity }))
    }

    /// Keeps a turn that has ended or waits. To be forgotten when it changes.
    pub(crate) fn keep(&self, tenant: &str, turn: &Turn) -> Arc<Past> {
        let messages = messages(turn);
        let base = compaction(turn).map(|made| Base { messages: compacted(made), provenance: made.provenance.clone() });
        let bytes = TURN_BYTES + messages.iter().chain(base.iter().flat_map(|base| &base.messages)).map(weight).sum::<usize>();
        let (parent, answers, erased) = (turn.parent_turn_id.clone(), answers(turn), erased(turn));
        let past = Arc::new(Past { parent, answers, messages, base, bytes, tokens: Mutex::default(), erased });
        self.change(|kept| kept.put((tenant.to_owned(), turn.id.clone()), past.clone()));
        past
    }

    pub(crate) fn forget(&self, tenant: &str, turn_id: &str) {
        self.change(|kept| kept.remove(&(tenant.to_owned(), turn_id.to_owned())));
    }

    fn get(&self, key: &Key) -> Option<Arc<Past>> {
        self.change(|kept| kept.turns.get(key).map(|(_, past)| past.clone()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a message takes in memory, nearly: what it says, and what that is kept in, which is more where it says little.
fn weight(message: &Message) -> usize {
    message.encoded_len() + size_of::<Message>() + message.parts.len() * size_of::<Part>()
}

impl Past {
    async fn tokens(&self, bound: &Bound<'_>) -> usize {
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((model, tokens)) = known
            && model == bound.model
        {
            return tokens;
        }
        let tokens = match compact::count(bound.inference, bound.cx, bound.model, &self.messages, &[]).await {
            Ok(tokens) => tokens,
            Err(error) if error.code() == Code::Unimplemented => compact::estimate(&self.messages),
            // Another time it may be counted.
            Err(_) => return compact::estimate(&self.messages),
        };
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Some((bound.model.to_owned(), tokens));
        tokens
    }
}

impl Kept {
    fn put(&mut self, key: Key, past: Arc<Past>) {
        self.remove(&key);
        self.bytes += past.bytes;
        self.order.push_back((self.next, key.clone()));
        self.turns.insert(key, (self.next, past));
        self.next += 1;
        while self.bytes > self.capacity
            && let Some((place, key)) = self.order.pop_front()
        {
            if self.turns.get(&key).is_some_and(|kept| kept.0 == place) {
                self.remove(&key);
            }
        }
        // Void rows are swept out together, so that keeping a turn costs the same however many there are.
        if self.order.len() > 2 * self.turns.len() + 64 {
            self.order.retain(|(place, key)| self.turns.get(key).is_some_and(|kept| kept.0 == *place));
        }
    }

    fn remove(&mut self, key: &Key) {
        self.bytes -= self.turns.remove(key).map_or(0, |(_, past)| past.bytes);
    }
}

/// The messages before this turn. A deleted ancestor ends the history: what was before it is out of reach. A summary
/// stands for all that it was made of. Ancestors beyond the bound are not read.
///
/// # Errors
/// The store's.
pub(crate) async fn before(shared: &Shared, tenant: &str, turn: &Turn, enough: Option<Bound<'_>>) -> Result<Before> {
    let mut chain: Vec<(Arc<Past>, HashSet<String>)> = Vec::new();
    let mut answered = answers(turn);
    let mut key = (tenant.to_owned(), turn.parent_turn_id.clone());
    let mut tokens = 0;
    while !key.1.is_empty() {
        let kept = match shared.histories.get(&key) {
            // A document that was deleted since is not to be read again here.
            Some(past) => match past.erased {
                Some(known) if shared.parts.store.erased_quotes(tenant, &key.1).await? != known => None,
                _ => Some(past),
            },
            None => None,
        };
        let past = match kept {
            Some(past) => past,
            None => match shared.load(tenant, &key.1).await {
                Ok(fold) => shared.histories.keep(tenant, &fold.turn),
                Err(error) if error.code() == Code::NotFound => break,
                Err(error) => return Err(error),
            },
        };
        key.1.clone_from(&past.parent);
        let answered_by_child = std::mem::replace(&mut answered, past.answers.clone());
        if let Some(bound) = &enough {
            tokens += past.tokens(bound).await;
        }
        let summarised = past.base.is_some();
        chain.push((past, answered_by_child));
        if summarised {
            // Nothing before it is read, so nothing in it is an orphan.
            answered.clear();
            break;
        }
        if enough.as_ref().is_some_and(|bound| tokens > bound.tokens) {
            break;
        }
    }
    let mut summarised = BTreeSet::new();
    let mut history = Vec::with_capacity(chain.iter().map(|(past, _)| past.messages.len()).sum());
    if let Some(base) = chain.last().and_then(|(past, _)| past.base.as_ref()) {
        history.extend_from_slice(&base.messages);
        summarised.extend(base.provenance.iter().cloned());
    }
    for (past, answered_by_child) in chain.iter().rev() {
        if answered_by_child.is_empty() {
            history.extend_from_slice(&past.messages);
        } else {
            history.extend(until_answered(&past.messages, answered_by_child));
        }
    }
    // Where the parent is gone or was not read, the results that began this history answer calls that nobody remembers.
    let orphaned = answered;
    history.iter_mut().take(1).for_each(|first| drop_results(first, &orphaned));
    history.retain(|message| !message.parts.is_empty() || message.role() == llama_stack_proto::v1::Role::Assistant);
    Ok(Before { messages: history, summarised })
}

/// Of the documents that a turn quotes, how many are deleted: their passages and quotes are empty. `None` where it quotes none.
fn erased(turn: &Turn) -> Option<usize> {
    let mut quotes: HashMap<(&str, &str), bool> = HashMap::new();
    // It may hold passages of the turns before it.
    let keeps = turn.steps.iter().any(|step| matches!(&step.step, Some(Step::Compaction(compaction)) if !compaction.kept.is_empty()));
    for step in &turn.steps {
        match &step.step {
            Some(Step::Tool(tool)) => {
                let found = tool.result.iter().flat_map(|result| &result.search_results);
                quotes.extend(found.map(|found| ((found.bank_id.as_str(), found.document_id.as_str()), found.text.is_empty())));
            }
            Some(Step::Inference(inference)) => {
                let citations = inference.message.iter().flat_map(|message| &message.parts).flat_map(|part| &part.citations);
                // A page of the web is no document of ours.
                let documents = citations.filter(|source| source.url.is_empty());
                quotes.extend(documents.map(|source| ((source.bank_id.as_str(), source.document_id.as_str()), source.quote.is_empty())));
            }
            _ => {}
        }
    }
    (keeps || !quotes.is_empty()).then(|| quotes.values().filter(|erased| **erased).count())
}

fn drop_results(message: &mut Message, orphaned: &HashSet<String>) {
    use llama_stack_proto::v1::part::Content;
    message.parts.retain(|part| !matches!(&part.content, Some(Content::ToolResult(result)) if orphaned.contains(&result.call_id)));
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Citation, InferenceStep, Role};

    use super::*;

    #[test]
    fn only_documents_can_be_erased() {
        let said = |citation: Citation| {
            let message = Message::new(Role::Assistant, vec![Part { citations: vec![citation], ..Part::text("so") }]);
            let inference = InferenceStep { message: Some(message), ..InferenceStep::default() };
            let step = llama_stack_proto::v1::Step { step: Some(Step::Inference(inference)), ..Default::default() };
            Turn { steps: vec![step], ..Turn::default() }
        };
        assert_eq!(erased(&said(Citation { url: "https://a.example".into(), ..Citation::default() })), None);
        let document = Citation { bank_id: "b".into(), document_id: "d".into(), ..Citation::default() };
        assert_eq!(erased(&said(document.clone())), Some(1));
        assert_eq!(erased(&said(Citation { quote: "words".into(), ..document })), Some(0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let histories = Histories::with_capacity(20_000);
        for n in 0..100 {
            histories.keep("t", &Turn { id: n.to_string(), input: vec![Message::user("x".repeat(100))], ..Turn::default() });
        }
        for _ in 0..1_000 {
            histories.keep("t", &Turn { id: "99".into(), input: vec![Message::user("again")], ..Turn::default() });
        }
        let (turns, order, bytes) = histories.change(|kept| (kept.turns.len(), kept.order.len(), kept.bytes));
        assert!(turns > 1 && order < 200 && bytes <= 20_000 && bytes > 10_000, "{turns} {order} {bytes}");
        assert!(histories.get(&("t".into(), "99".into())).is_some());
        assert!(histories.get(&("u".into(), "99".into())).is_none());
        histories.forget("t", "99");
        assert!(histories.get(&("t".into(), "99".into())).is_none());
    }
}
