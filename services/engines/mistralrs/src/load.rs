//! Weights into an engine, on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use mistralrs::{
    AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, IsqType, ModelDType, ModelGenerationDefaults, SchedulerConfig,
    TokenSource, best_device,
    core::{GGUFLoaderBuilder, GGUFSpecificConfig, Loader, MistralRsBuilder, NormalLoaderBuilder, NormalSpecificConfig},
    parse_isq_value,
};
use tokio::sync::oneshot;

use llama_stack_core::{Error, Result};
use llama_stack_models::{
    decode::{Defaults, ENDS, Lexicon, Parts, Writing},
    template::ChatTemplate,
};

use crate::{config::Options, engine::Engine};

/// What is to be loaded: files that are there and were checked.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) format: Format,
    pub(crate) template: Option<ChatTemplate>,
    /// Tokens; smaller than the model's own where the manifest says so.
    pub(crate) context_length: u32,
    pub(crate) options: Options,
}

#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// Names of the parts below the folder, in order. A `tokenizer.json` beside them is taken in place of the file's own,
    /// whose fixed way of splitting text is wrong for the numbers of Llama 3.
    Gguf {
        parts: Vec<String>,
        tokenizer: bool,
        /// What a raw prompt begins with: mistral.rs makes a tokenizer of the file that never adds it.
        begin: Option<u32>,
        /// What the file calls its ends.
        ends: Vec<u32>,
    },
    Safetensors,
}

/// # Errors
/// `NotFound` for a folder that is gone · `FailedPrecondition` (`model_unusable`) for what mistral.rs refuses or panics over.
pub(crate) async fn load(weights: Weights) -> Result<Engine> {
    let (done, loaded) = oneshot::channel();
    let id = weights.id.clone();
    // Not on tokio's threads: mistral.rs would make a trial run there, and block.
    std::thread::Builder::new()
        .name("mistralrs-load".into())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| read(&weights))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                Err(unusable(&weights.id, text.unwrap_or("it panicked")))
            });
            drop(done.send(result));
        })
        .map_err(|error| Error::internal("no thread to load a model on").with_source(error))?;
    loaded.await.map_err(|_| unusable(&id, "the loading thread ended"))?
}

fn read(weights: &Weights) -> Result<Engine> {
    let failed = |error: &dyn std::fmt::Display| unusable(&weights.id, &error.to_string());
    let device = best_device(weights.options.cpu).map_err(|error| failed(&error))?;
    let isq = isq(weights, &device)?;
    let loader = loader(weights)?;
    let pipeline = loader
        .load_model_from_hf(
            None,
            TokenSource::None,
            &ModelDType::Auto,
            &device,
            true,
            DeviceMapSetting::Auto(AutoDeviceMapParams::default_text()),
            isq,
            None,
        )
        .map_err(|error| failed(&error))?;
    let parts = {
        let pipeline = pipeline.try_lock().map_err(|error| failed(&error))?;
        let metadata = pipeline.get_metadata();
        let tokenizer = pipeline.tokenizer().ok_or_else(|| failed(&"it has no tokenizer"))?;
        let grammars = metadata.llg_factory.clone().ok_or_else(|| failed(&"its tokenizer cannot be read as bytes"))?;
        let (begin, named) = match &weights.format {
            Format::Gguf { begin, ends, .. } => (*begin, ends.as_slice()),
            Format::Safetensors => (None, &[][..]),
        };
        let ends = ends(&metadata.eos_tok, named, |name| tokenizer.token_to_id(name));
        if metadata.eos_tok.is_empty() {
            return Err(failed(&"its files name no end token"));
        }
        Parts {
            encode: Box::new(move |text, special| match tokenizer.encode_fast(text, special) {
                Ok(encoding) => Ok(begin.filter(|_| special).into_iter().chain(encoding.get_ids().iter().copied()).collect()),
                Err(error) => Err(error.to_string()),
            }),
            template: weights.template.clone(),
            writing: Writing::Grammars(grammars),
            ends,
            defaults: pipeline.generation_defaults().map(defaults).unwrap_or_default(),
            context_length: u32::try_from(metadata.max_seq_len).unwrap_or(u32::MAX).min(weights.context_length),
        }
    };
    let one = SchedulerConfig::DefaultScheduler { method: DefaultSchedulerMethod::Fixed(std::num::NonZeroUsize::MIN) };
    let builder = MistralRsBuilder::new(pipeline, one, false, None)
        // It never lets go of anything on the CPU.
        .with_no_prefix_cache(true)
        // A prompt that is read token by token has ends of its own, after each message.
        .with_disable_eos_stop(true);
    let runner = futures::executor::block_on(builder.build());
    let sender = runner.get_sender(None).map_err(|error| failed(&error))?;
    let step = weights.options.prompt_step.map(std::num::NonZeroUsize::get);
    Ok(Engine::new(runner, sender, Lexicon::new(&weights.id, parts), step))
}

/// A path that is not there would be taken for the name of a repository, and asked for in the network.
fn loader(weights: &Weights) -> Result<Box<dyn Loader>> {
    let dir = weights.dir.to_str().ok_or_else(|| unusable(&weights.id, "its path is not UTF-8"))?.to_owned();
    let must_be = |path: &Path| {
        if path.exists() { Ok(()) } else { Err(Error::not_found(format!("model {:?}: {} is gone", weights.id, path.display()))) }
    };
    must_be(&weights.dir)?;
    match &weights.format {
        Format::Gguf { parts, tokenizer, .. } => {
            parts.iter().try_for_each(|part| must_be(&weights.dir.join(part)))?;
            let tokenizer = tokenizer.then(|| dir.clone());
            Ok(GGUFLoaderBuilder::new(None, tokenizer, dir, parts.clone(), GGUFSpecificConfig::default(), false, None).build())
        }
        Format::Safetensors => {
            ["config.json", "tokenizer.json"].iter().try_for_each(|name| must_be(&weights.dir.join(name)))?;
            NormalLoaderBuilder::new(NormalSpecificConfig::default(), None, None, Some(dir), false, None)
                .build(None)
                .map_err(|error| unusable(&weights.id, &error.to_string()))
        }
    }
}

fn isq(weights: &Weights, device: &mistralrs::Device) -> Result<Option<IsqType>> {
    let Some(wanted) = &weights.options.isq else { return Ok(None) };
    if matches!(weights.format, Format::Gguf { .. }) {
        return Err(Error::invalid("options.isq", format!("model {:?}: options.isq: a GGUF file is quantised already", weights.id)));
    }
    parse_isq_value(wanted, Some(device)).map(Some).map_err(|_| {
        Error::invalid("options.isq", format!("model {:?}: options.isq: {wanted:?} is no quantisation; for example q8_0", weights.id))
    })
}

/// The engine's own ends first: one of them must end its sequences.
fn ends(own: &[u32], named: &[u32], id: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    let mut ends = own.to_vec();
    for id in named.iter().copied().chain(ENDS.iter().filter_map(|name| id(name))) {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    ends
}

fn defaults(own: ModelGenerationDefaults) -> Defaults {
    let greedy = own.do_sample == Some(false);
    Defaults {
        temperature: if greedy { Some(0.0) } else { own.temperature.map(|value| value as f32) },
        top_p: own.top_p.map(|value| value as f32),
        top_k: own.top_k.and_then(|value| u32::try_from(value).ok()),
        min_p: own.min_p.map(|value| value as f32),
        repetition_penalty: own.repetition_penalty,
    }
}

fn unusable(id: &str, cause: &str) -> Error {
    let cause = first_words(cause);
    Error::failed_precondition(format!("model {id:?} cannot be loaded: {cause}")).with_reason("model_unusable")
}

/// A cause without its backtrace.
fn first_words(cause: &str) -> String {
    let backtrace = |line: &str| {
        let line = line.trim_start();
        line.eq_ignore_ascii_case("stack backtrace:") || line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    let lines: Vec<&str> = cause.lines().take_while(|line| !backtrace(line)).map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_no_part_of_a_cause() {
        let cause = "cannot find tensor output.weight\n   0: candle_core::error::Error::bt\n             at /somewhere/error.rs:264\n";
        assert_eq!(first_words(cause), "cannot find tensor output.weight");
        assert_eq!(first_words("bad header\n\nStack backtrace:\n   0: x"), "bad header");
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_is_not_looked_for_elsewhere() {
        let weights = Weights {
            id: "m".into(),
            dir: "/nowhere/org/model".into(),
            format: Format::Gguf { parts: vec!["model.gguf".into()], tokenizer: false, begin: None, ends: Vec::new() },
            template: None,
            context_length: 8,
            options: Options::default(),
        };
        let error = load(weights.clone()).await.err().unwrap();
        assert_eq!(error.message(), "model \"m\": /nowhere/org/model is gone");
        let folder = Weights { dir: std::env::temp_dir(), format: Format::Safetensors, ..weights };
        assert!(load(folder).await.err().unwrap().message().ends_with("config.json is gone"));
    }
}
