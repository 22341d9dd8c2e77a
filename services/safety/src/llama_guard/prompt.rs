//! The prompt, byte for byte as the published template of the family writes it.

use super::{
    conversation::{Speaker, Turn},
    family::{BEGIN, Family},
    policy::Policy,
};

/// Without what stands before the text: a server that is given text puts its begin token there itself.
pub(super) fn body(family: Family, policy: &Policy, turns: &[Turn]) -> String {
    let frame = family.frame();
    let role = turns.last().map_or(Speaker::User, |turn| turn.speaker).name();
    let mut prompt = String::from(frame.open);
    prompt.push_str("Task: Check if there is unsafe content in '");
    prompt.push_str(role);
    prompt.push_str("' messages in conversations according our safety policy with the below categories.\n\n");
    prompt.push_str("<BEGIN UNSAFE CONTENT CATEGORIES>\n");
    for category in policy.asked() {
        prompt.extend([category.code.as_str(), ": ", category.name.as_str(), ".\n"]);
        if !category.definition.is_empty() {
            prompt.extend([category.definition.as_str(), "\n"]);
        }
    }
    prompt.push_str("<END UNSAFE CONTENT CATEGORIES>\n\n<BEGIN CONVERSATION>\n\n");
    for turn in turns {
        prompt.extend([turn.speaker.name(), ": ", turn.text.as_str(), "\n\n"]);
    }
    prompt.push_str("<END CONVERSATION>\n\nProvide your safety assessment for ONLY THE LAST ");
    prompt.push_str(role);
    prompt.push_str(" message in the above conversation:\n - First line must read 'safe' or 'unsafe'.\n");
    prompt.push_str(" - If unsafe, a second line must include a comma-separated list of violated categories.");
    prompt.push_str(frame.close);
    prompt
}

/// The whole of it.
pub(super) fn whole(family: Family, body: &str) -> String {
    format!("{}{BEGIN}{body}", family.frame().lead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(speaker: Speaker, text: &str) -> Turn {
        Turn { speaker, text: text.into() }
    }

    fn rendered(family: Family, policy: &Policy, turns: &[Turn]) -> String {
        whole(family, &body(family, policy, turns))
    }

    #[test]
    fn only_what_is_asked_for_is_in_the_prompt() {
        let extra: Vec<super::super::policy::CategoryConfig> = serde_json::from_str(
            r#"[{"code":"S15","name":"Secrets","definition":"Names of customers."},{"code":"s1","definition":"War."}]"#,
        )
        .unwrap();
        let policy = Policy::configured(Family::Guard3B1, &extra, &["s6".into()]).unwrap();
        let prompt = rendered(Family::Guard3B1, &policy, &[turn(Speaker::User, "hi")]);
        assert!(prompt.contains("\nS13: Elections.\nS15: Secrets.\nNames of customers.\n<END UNSAFE"), "{prompt}");
        assert!(prompt.contains("\nS1: Violent Crimes.\nWar.\nS2:") && !prompt.contains("S6:"), "{prompt}");
    }

    #[test]
    fn a_wrong_policy_is_refused_at_its_field() {
        let refused = |categories: &str, excluded: &[&str]| {
            let categories: Vec<super::super::policy::CategoryConfig> = serde_json::from_str(categories).unwrap();
            let excluded: Vec<String> = excluded.iter().map(|code| (*code).to_owned()).collect();
            Policy::configured(Family::Guard3B1, &categories, &excluded).unwrap_err().field().map(str::to_owned).unwrap()
        };
        assert_eq!(refused("[]", &["S14"]), "config.excluded_categories[0]", "the 1B has no S14");
        assert_eq!(refused(r#"[{"code":"S15"}]"#, &[]), "config.categories[0].name");
        assert_eq!(refused(r#"[{"code":"15"}]"#, &[]), "config.categories[0].code");
        let all: Vec<String> = (1..=13).map(|n| format!("S{n}")).collect();
        assert_eq!(refused("[]", &all.iter().map(String::as_str).collect::<Vec<_>>()), "config.excluded_categories");
    }
}
