//! `rzc serve`: serves models over HTTP and gRPC.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ray_zerocopy::Batching;
use ray_zerocopy_serve::{
    Limits, LoadOutcome, LogFormat, Metrics, ModelRepository, Running, ServeError, Server, Service, Tls, Tracing,
};
use signal_hook::consts::SIGHUP;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Outcome;
use crate::cli_serve::{Log, Serve};
use crate::files::not_ignored;
use crate::output::{Output, one_line, print_error};

/// Interval at which files are looked at for changes.
const WATCH: Duration = Duration::from_secs(1);
/// Time for the workers to end, when no call is left.
const FLUSH: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Serve, output: &mut Output) -> Result<Outcome> {
    // Before the workers, which do the same.
    let _tracing = tracing(options).install()?;
    let models = repository(options)?;
    let named: Vec<_> = options.models.iter().map(|text| named(text)).collect::<Result<_>>()?;
    for (name, file) in &named {
        models.add_file(name, file).with_context(|| file.display().to_string())?;
        describe(&models, name, output)?;
    }
    if let Some(folder) = &options.folder {
        writeln!(output, "clients may load models of {}", one_line(&folder.display().to_string()))?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads for the server")?;
    let left = runtime.block_on(serve(options, models.clone(), output))?;
    if left == 0 {
        // The workers send their last spans before they end.
        let _drained = models.pool().drain(FLUSH);
    } else {
        models.pool().shut_down_now();
        bail!("{left} calls did not end within {} s, and were cancelled; --drain gives them more time", options.drain);
    }
    Ok(Outcome::Success)
}

/// What is logged and exported.
fn tracing(options: &Serve) -> Tracing {
    let mut tracing = Tracing::new("rzc serve");
    if let Some(format) = options.log {
        tracing = tracing.log(match format {
            Log::Text => LogFormat::Text,
            Log::Json => LogFormat::Json,
        });
    }
    #[cfg(feature = "otlp")]
    if let Some(endpoint) = &options.otlp {
        tracing = tracing.otlp(endpoint);
    }
    tracing
}

/// Starts the workers.
fn repository(options: &Serve) -> Result<ModelRepository> {
    if options.models.is_empty() && options.folder.is_none() {
        bail!("there is nothing to serve; name models, as in `rzc serve model.rzg`, or a folder with --folder");
    }
    let batching = (options.max_batch > 1).then(|| Batching::default().max_rows(options.max_batch));
    let mut builder = ModelRepository::builder().device(options.device.clone()).batching(batching);
    if let Some(workers) = options.workers {
        builder = builder.workers(usize::from(workers));
    }
    if let Some(threads) = options.threads {
        builder = builder.threads_per_worker(usize::from(threads));
    }
    if let Some(folder) = &options.folder {
        builder = builder.folder(folder);
    }
    if options.hold {
        builder = builder.hold();
    }
    for text in &options.tokenizer {
        let (model, file) = tokenizer(text, &options.models)?;
        ensure!(file.is_file(), "{}: there is no such file, expected a `tokenizer.json`", file.display());
        builder = builder.tokenizer(model, file);
    }
    Ok(builder.start()?)
}

/// The name and the file of `[NAME=]MODEL`.
fn named(text: &str) -> Result<(String, &Path)> {
    if let Some((name, file)) = text.split_once('=')
        && !name.contains('/')
        && !Path::new(text).exists()
    {
        return Ok((name.to_owned(), Path::new(file)));
    }
    let file = Path::new(text);
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.with_context(|| format!("{text}: its name is not text; give it one, as in `name={text}`"))?;
    Ok((stem.to_owned(), file))
}

/// The model and the file of `[NAME=]FILE`.
fn tokenizer<'a>(text: &'a str, models: &[String]) -> Result<(String, &'a Path)> {
    if let Some((name, file)) = text.split_once('=')
        && !name.contains('/')
    {
        return Ok((name.to_owned(), Path::new(file)));
    }
    match models {
        [model] => Ok((named(model)?.0, Path::new(text))),
        _ => bail!(
            "there are {} models: say which one the tokenizer is for, as in `--tokenizer NAME={text}`",
            models.len()
        ),
    }
}

/// Prints a model with its inputs and outputs.
fn describe(models: &ModelRepository, name: &str, output: &mut Output) -> Result<()> {
    let (info, _) = models.info(name, "")?;
    let ports = |ports: &[ray_zerocopy_serve::TensorPort]| {
        let port = |port: &ray_zerocopy_serve::TensorPort| format!("{} {} {:?}", port.name, port.datatype, port.shape);
        ports.iter().map(port).collect::<Vec<_>>().join(", ")
    };
    let outputs = if info.outputs.is_empty() { "?".to_owned() } else { ports(&info.outputs) };
    writeln!(output, "{name}: {} → {outputs}", ports(&info.inputs))
}

/// Serves until a signal. Returns the number of calls that did not end.
async fn serve(options: &Serve, models: ModelRepository, output: &mut Output) -> Result<usize> {
    let term = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let int = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let hup = if not_ignored(&[SIGHUP]).is_empty() { None } else { Some(signal(SignalKind::hangup())) };
    let hup = hup.transpose().context("signals cannot be handled")?;
    let mut running = server(options, &models)?.start()?;
    // For `rzc top`. Without the folder in which programs find each other, the models are served all the same.
    let _published = ray_zerocopy::observe::publish("rzc serve").inspect_err(|error| print_error(&error.to_string()));
    let scheme = if options.tls_cert.is_some() { "https" } else { "http" };
    if let Some(address) = running.http_address() {
        writeln!(output, "listening at {scheme}://{address}")?;
    }
    if let Some(address) = running.grpc_address() {
        writeln!(output, "listening at grpc://{address}")?;
    }
    output.finish()?;
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("systemd cannot be told that it is ready")?;
    }
    let mut signals = Signals { term, int, hup };
    signals.end(&mut running, &models, !options.no_watch).await?;
    tokio::select! {
        left = running.shut_down() => Ok(left),
        () = signals.again() => bail!("ended by a second signal before the calls in flight had ended"),
    }
}

fn server(options: &Serve, models: &ModelRepository) -> Result<Server> {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let limits = Limits::default()
        .calls(options.max_calls)
        .bytes(bytes(options.max_bytes))
        .request_bytes(bytes(options.max_request))
        .connections(options.max_connections)
        .timeout(Duration::from_secs_f64(options.timeout))
        .receive(Duration::from_secs_f64(options.receive_timeout));
    let mut service = Service::builder(models.clone()).limits(limits).metrics(Metrics::install()?);
    if let Some(file) = &options.tokens {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        ensure!(!tokens.is_empty(), "{}: it has no token, expected one on each line", file.display());
        for token in tokens {
            service = service.token(token);
        }
    }
    let delay = Duration::from_secs_f64(options.drain_delay.unwrap_or_default());
    let mut server = Server::new(service.build())
        .http(address(&options.host, options.port))
        .grpc(address(&options.host, options.grpc_port))
        .drain(delay, Duration::from_secs_f64(options.drain));
    if let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) {
        let tls = Tls::new(certificate, key);
        server = server.tls(options.client_ca.iter().fold(tls, |tls, authority| tls.client_ca(authority)));
    }
    Ok(server)
}

/// The address of a host and a port; an IPv6 address gets brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Option<Signal>,
}

impl Signals {
    /// Waits for the signal that ends the server. Loads models again meanwhile.
    async fn end(&mut self, running: &mut Running, models: &ModelRepository, is_watching: bool) -> Result<()> {
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.term.recv() => return Ok(()),
                _ = self.int.recv() => return Ok(()),
                failed = running.failed() => return Err(failed.into()),
                () = hung_up(&mut self.hup) => {
                    if let Err(error) = running.reload_certificates() {
                        print_error(&format!("the certificates stay as they are: {error}"));
                    }
                    let models = models.clone();
                    report(tokio::task::spawn_blocking(move || models.reload()).await?);
                }
                _ = watch.tick(), if is_watching => {
                    let models = models.clone();
                    report(tokio::task::spawn_blocking(move || reload_changed(&models)).await?);
                }
            }
        }
    }

    /// Waits for a further signal.
    async fn again(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

async fn hung_up(hup: &mut Option<Signal>) {
    match hup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

type Reloads = Vec<(String, Result<LoadOutcome, ServeError>)>;

fn reload_changed(models: &ModelRepository) -> Reloads {
    let load = |name: String| {
        let outcome = models.load(&name);
        (name, outcome)
    };
    models.changed().into_iter().map(load).collect()
}

/// Prints what became of models that were loaded again.
fn report(reloads: Reloads) {
    for (name, outcome) in reloads {
        match outcome {
            Ok(LoadOutcome::Swapped { version }) => eprintln!("{name}: version {version} is current"),
            Ok(_) => {}
            Err(error) => print_error(&format!("{name}: the current version stays: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{address, named, tokenizer};

    #[test]
    fn models_have_the_names_of_their_files() {
        assert_eq!(named("a/minilm.rzg").unwrap(), ("minilm".to_owned(), Path::new("a/minilm.rzg")));
        assert_eq!(named("vad=a/b=c.jit").unwrap(), ("vad".to_owned(), Path::new("a/b=c.jit")));
        assert_eq!(named("./a=b.rzg").unwrap(), ("a=b".to_owned(), Path::new("./a=b.rzg")));
    }

    #[test]
    fn tokenizer_of_the_only_model_needs_no_name() {
        let one = ["m=a.rzg".to_owned()];
        assert_eq!(tokenizer("t.json", &one).unwrap(), ("m".to_owned(), Path::new("t.json")));
        let two = ["a.rzg".to_owned(), "b.rzg".to_owned()];
        assert_eq!(tokenizer("b=t.json", &two).unwrap(), ("b".to_owned(), Path::new("t.json")));
        assert!(tokenizer("t.json", &two).unwrap_err().to_string().contains("--tokenizer NAME=t.json"));
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!((address("::1", 80), address("localhost", 80)), ("[::1]:80".to_owned(), "localhost:80".to_owned()));
    }
}
