use std::time::Instant;
use burn::tensor::Device;
use ray_zerocopy_examples::{corpus, minilm::{fetch, tokenize, MiniLmConfig}};
fn mem(k: &str) -> u64 { std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with(k)).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap() }
fn main() -> anyhow::Result<()> {
    let files = fetch::model_files()?;
    let t = Instant::now();
    let tok = tokenize::load(&files.tokenizer())?;
    println!("tokenizer {:?}", t.elapsed());
    let t = Instant::now();
    let skel = MiniLmConfig::from_file(&files.config())?.init(&Device::flex());
    println!("init {:?} anon {} kB", t.elapsed(), mem("RssAnon"));
    let before = mem("RssAnon");
    let t = Instant::now();
    let model = skel.load_safetensors(&files.weights())?;
    println!("load {:?}: anon +{} kB file {} kB peak {} kB (model 90868 kB)", t.elapsed(), mem("RssAnon") - before, mem("RssFile"), mem("VmHWM"));
    let reference: serde_json::Value = serde_json::from_str(include_str!("../data/minilm_reference.json"))?;
    let s8: Vec<String> = reference["sentences"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap().to_string()).collect();
    let v: Vec<f32> = model.encode(&tok, &s8)?.into_data().try_into_vec().unwrap();
    let r: Vec<f32> = reference["sentences"].as_array().unwrap().iter().flat_map(|s| s["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32)).collect();
    println!("max diff {:e}", v.iter().zip(&r).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max));
    let sents = corpus::sentences();
    let mut runs: Vec<(&str, Vec<String>)> = vec![
        ("reference x32", s8.iter().cycle().take(256).cloned().collect()),
        ("corpus", sents.clone()),
        ("~32 tokens", sents.chunks(2).map(|c| c.join(" ")).collect()),
        ("~128 tokens", sents.chunks(10).map(|c| c.join(" ")).take(10).collect()),
    ];
    if std::env::args().count() > 1 { runs.truncate(2); }
    for (name, texts) in runs {
        let ids = tokenize::token_ids(&tok, &texts)?;
        let mean = ids.iter().map(Vec::len).sum::<usize>() as f64 / ids.len() as f64;
        let mut best = f64::MAX; let mut ttok = 0.0;
        for _ in 0..5 {
            let t = Instant::now(); tokenize::token_ids(&tok, &texts)?; ttok = t.elapsed().as_secs_f64();
            let t = Instant::now();
            let out = model.encode(&tok, &texts)?;
            assert_eq!(out.dims()[0], texts.len());
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!("{name}: {} texts, mean {mean:.1} tokens: {:.1} sentences/s (tokenizing {:.1} ms of {:.1})", texts.len(), texts.len() as f64 / best, ttok * 1e3, best * 1e3);
    }
    Ok(())
}
struct Aligned;
unsafe impl std::alloc::GlobalAlloc for Aligned {
    unsafe fn alloc(&self, l: std::alloc::Layout) -> *mut u8 { unsafe { std::alloc::System.alloc(up(l)) } }
    unsafe fn dealloc(&self, p: *mut u8, l: std::alloc::Layout) { unsafe { std::alloc::System.dealloc(p, up(l)) } }
}
fn up(l: std::alloc::Layout) -> std::alloc::Layout { if l.size() >= 4096 && l.align() < 64 { std::alloc::Layout::from_size_align(l.size(), 64).unwrap() } else { l } }
#[global_allocator] static A: Aligned = Aligned;
