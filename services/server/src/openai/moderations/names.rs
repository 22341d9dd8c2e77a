//! OpenAI's names of categories, which its clients' types have, and what of a shield's own they cover.

use llama_stack_proto::v1::Shield;

/// Source: the API reference of moderations.
pub(super) const OPENAI: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// Short names of the MLCommons taxonomy, as Llama Guard has them, and OpenAI's name that covers them.
const HAZARDS: [(&str, &str); 9] = [
    ("Violent Crimes", "violence"),
    ("Violent Crimes", "illicit/violent"),
    ("Indiscriminate Weapons", "illicit/violent"),
    ("Non-Violent Crimes", "illicit"),
    ("Sex Crimes", "sexual"),
    ("Sexual Content", "sexual"),
    ("Child Exploitation", "sexual/minors"),
    ("Hate", "hate"),
    ("Self-Harm", "self-harm"),
];

/// The shield's codes that an OpenAI name covers.
pub(super) fn own<'a>(shield: &'a Shield, name: &'a str) -> impl Iterator<Item = &'a str> {
    let covered = move |category: &str| HAZARDS.iter().any(|(hazard, covering)| *covering == name && *hazard == category);
    shield.categories.iter().filter(move |category| covered(&category.name)).map(|category| category.code.as_str())
}
