use llama_stack_policy::Facts;

use crate::ask::{PERMIT, ask, policy};

#[test]
fn roles_and_tenants_decide() {
    let policy = policy(
        r#"
        @id("acme") permit (principal, action == Action::"call", resource) when { principal.tenant == "acme" };
        @id("admin") permit (principal, action == Action::"call_unattended", resource) when { principal.roles.contains("admin") };
        @id("bob") permit (principal == User::"acme/bob", action, resource);
        "#,
    );
    for (tenant, id, roles, wanted) in [
        ("acme", "ann", &["admin"][..], "allow:acme,admin"),
        ("acme", "ann", &["dev"], "ask:"),
        ("acme", "ann", &[], "ask:"),
        ("acme", "bob", &[], "allow:acme,bob"),
        ("other", "bob", &["admin"], "deny:"),
        ("other", "ann", &["admin"], "deny:"),
    ] {
        let mut ask = ask();
        ask.principal.tenant = tenant.into();
        ask.principal.id = id.into();
        ask.principal.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        assert_eq!(ask.answer(&policy), wanted, "{tenant}/{id} {roles:?}");
    }
}

#[test]
fn agents_groups_and_where_a_tool_is_served_decide() {
    let policy = policy(&format!(
        r#"{PERMIT}
        @id("agent") forbid (principal, action, resource) when {{ context.agent == Agent::"intern" && resource.changes_state }};
        @id("remote") forbid (principal, action == Action::"call_unattended", resource) when {{ resource.remote && resource.group != "web" }};
        @id("tool") forbid (principal, action, resource == Tool::"shell/run");
        "#
    ));
    for (agent, group, name, changes_state, remote, wanted) in [
        ("support", "web", "run", true, true, "allow:rest"),
        ("intern", "web", "run", true, true, "deny:agent"),
        ("intern", "web", "run", false, true, "allow:rest"),
        ("support", "files", "run", true, true, "ask:remote"),
        ("support", "files", "run", true, false, "allow:rest"),
        ("intern", "shell", "run", true, false, "deny:agent,tool"),
    ] {
        let mut ask = ask();
        ask.agent_id = agent.into();
        ask.tool = Facts { changes_state, remote, ..Facts::unknown(name, group) };
        assert_eq!(ask.answer(&policy), wanted, "{agent} {group}/{name}");
    }
}

/// `is`, an action named in the condition, and several actions: the scopes that are more than a name.
#[test]
fn every_scope_of_cedar_is_understood() {
    let policy = policy(&format!(
        r#"{PERMIT}
        @id("none") forbid (principal is User, action, resource is Tool) when {{ resource.name == "none" }};
        @id("ask") forbid (principal, action, resource) when {{ action == Action::"call_unattended" && resource.name == "ask" }};
        @id("both") forbid (principal == User::"acme/ann", action in [Action::"call", Action::"call_unattended"], resource in Tool::"web/both");
        "#
    ));
    for (id, name, wanted) in [
        ("ann", "none", "deny:none"),
        ("ann", "ask", "ask:ask"),
        ("ann", "both", "deny:both"),
        ("bob", "both", "allow:rest"),
        ("ann", "other", "allow:rest"),
    ] {
        let mut ask = ask();
        ask.principal.id = id.into();
        ask.tool.name = name.into();
        assert_eq!(ask.answer(&policy), wanted, "{id} {name}");
    }
}

#[test]
fn what_the_session_has_seen_decides() {
    let policy = policy(&format!(
        r#"{PERMIT}
        @id("web") forbid (principal, action, resource) when {{ context.seen.contains("untrusted:tool:http_fetch") }};
        @id("any") forbid (principal, action == Action::"call_unattended", resource) when {{ context.seen_untrusted }};
        @id("private") forbid (principal, action == Action::"call_unattended", resource) when {{ context.seen_private }};
        @id("bank") forbid (principal, action, resource) when {{ context.seen.containsAny(["retrieved:payroll", "retrieved:cases"]) }};
        "#
    ));
    for (seen, wanted) in [
        (&[][..], "allow:rest"),
        (&["tool:http_fetch"], "allow:rest"),
        (&["tool:mail", "untrusted:tool:mail"], "ask:any"),
        (&["private:tool:mail", "untrusted:tool:mail"], "ask:any,private"),
        (&["untrusted:tool:http_fetch"], "deny:web"),
        (&["retrieved:payroll", "untrusted:retrieved:payroll"], "deny:bank"),
    ] {
        assert_eq!(ask().seen(seen).answer(&policy), wanted, "{seen:?}");
    }
}

#[test]
fn more_labels_than_can_be_looked_at_are_known_to_be_unread() {
    let policy = policy(&format!(
        r#"{PERMIT}
        @id("unread") forbid (principal, action, resource) when {{ context.unreadable }};
        @id("any") forbid (principal, action, resource) when {{ context.seen_untrusted }};
        "#
    ));
    let mut ask = ask();
    ask.seen = (0..128).map(|n| format!("tool:{n}")).collect();
    assert_eq!(ask.answer(&policy), "allow:rest");
    ask.seen.insert("untrusted:tool:x".into());
    assert_eq!(ask.answer(&policy), "deny:any,unread");
}
