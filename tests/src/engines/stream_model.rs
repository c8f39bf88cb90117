//! A pipeline whose methods return streams.

use std::path::Path;
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;

use crate::memory::eventually;

/// A linear layer, and methods that return iterators.
#[derive(Pipeline)]
#[pipeline(init = StreamModel::new)]
pub struct StreamModel {
    /// The weights.
    pub layer: Linear,
    /// Number of items of `remember`: the state of an actor.
    #[pipeline(skip)]
    pub items: usize,
}

/// Counts the items that it has made in a file, and creates another one when it is dropped.
struct Noted {
    made: usize,
    count: usize,
    folder: String,
}

impl Iterator for Noted {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.made == self.count {
            return None;
        }
        self.made += 1;
        // Renamed, so that a reader never finds half a number.
        let folder = Path::new(&self.folder);
        std::fs::write(folder.join("new"), self.made.to_string()).expect("the test's folder exists");
        std::fs::rename(folder.join("new"), folder.join("made")).expect("the test's folder exists");
        Some(self.made)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        std::fs::write(Path::new(&self.folder).join("dropped"), "").expect("the test's folder exists");
    }
}

#[ray_zerocopy::remote]
impl StreamModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 4).init(device), items: 0 }
    }

    /// Keeps the worker busy.
    pub fn sleep(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }

    /// Counts up.
    #[remote(stream)]
    pub fn count(&self, count: usize) -> impl Iterator<Item = usize> {
        0..count
    }

    /// The same from a type that has a name.
    #[remote(stream)]
    pub fn list(&self, count: usize) -> Vec<usize> {
        (0..count).collect()
    }

    /// Applies the layer again and again, which borrows the pipeline.
    #[remote(stream)]
    pub fn repeat(&self, input: Tensor<2>, count: usize) -> impl Iterator<Item = (Tensor<2>, usize)> + '_ {
        std::iter::successors(Some(input), |last| Some(self.layer.forward(last.clone()))).zip(0..count)
    }

    /// The length of each text. The empty one is an error.
    #[remote(stream)]
    pub fn lengths(&self, texts: Vec<String>) -> Box<dyn Iterator<Item = Result<usize, String>>> {
        let length = |text: String| if text.is_empty() { Err("empty".to_owned()) } else { Ok(text.len()) };
        Box::new(texts.into_iter().map(length))
    }

    /// Waits before each item but the first until a file with its number exists.
    #[remote(stream)]
    pub fn wait_for_files(&self, folder: String, count: usize) -> impl Iterator<Item = usize> {
        (0..count).inspect(move |item| {
            let file = Path::new(&folder).join(item.to_string());
            eventually("the file exists", || *item == 0 || file.exists());
        })
    }

    /// Writes down what it makes.
    #[remote(stream)]
    pub fn noted(&self, folder: String, count: usize) -> impl Iterator<Item = usize> {
        Noted { made: 0, count, folder }
    }

    /// Panics after some items.
    #[remote(stream)]
    pub fn panic_after(&self, count: usize) -> impl Iterator<Item = usize> {
        (0..=count).inspect(move |item| assert!(*item < count, "asked to panic"))
    }

    /// Ends the process after some items, unless the file exists.
    #[remote(stream)]
    pub fn die_once_after(&self, count: usize, file: String) -> impl Iterator<Item = usize> {
        (0..=count).inspect(move |item| {
            if *item == count && !Path::new(&file).exists() {
                std::fs::write(&file, "").expect("the test's folder exists");
                crate::models::kill_myself();
            }
        })
    }

    /// Sleeps before each item.
    #[remote(stream)]
    pub fn slow(&self, count: usize, millis: u64) -> impl Iterator<Item = usize> {
        (0..count).inspect(move |_| std::thread::sleep(Duration::from_millis(millis)))
    }

    /// Counts its items of all calls.
    #[remote(stream)]
    pub fn remember(&mut self, count: usize) -> impl Iterator<Item = usize> {
        (0..count).map(|_| {
            self.items += 1;
            self.items
        })
    }
}
