//! Silero VAD, a TorchScript module that detects speech, and a synthetic signal for it.

use std::f64::consts::TAU;
use std::path::PathBuf;

use anyhow::Result;

use crate::wheel::{Published, Wheel};

/// The module in its package on PyPI. MIT licence.
pub const MODULE: Wheel = Wheel {
    name: "silero-vad",
    what: "Silero VAD",
    origin: "snakers4/silero-vad",
    requirement: "silero-vad==6.2.3",
    bytes: 11_317_527,
    page: "https://pypi.org/project/silero-vad/6.2.3/",
    folder: "silero_vad/data",
    files: &[Published {
        name: "silero_vad.jit",
        bytes: 2_272_526,
        sha256: "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
    }],
};

/// Samples per second.
pub const RATE: usize = 16_000;

/// Returns the file of the module, which is downloaded at first use.
///
/// # Errors
///
/// If the file is missing and cannot be downloaded; the error explains how to provide it.
pub fn module_file() -> Result<PathBuf> {
    Ok(MODULE.find()?.join(MODULE.files[0].name))
}

/// Generates two seconds of sound, of which the middle second is a voice: four syllables with
/// changing vowels and a falling pitch, which starts at `180.0` Hz, for example.
pub fn voice(pitch: f64) -> Vec<f32> {
    let mut phase = 0.0;
    let sample = |at: usize| {
        let time = at as f64 / RATE as f64;
        let pitch = pitch - 20.0 * time;
        phase += TAU * pitch / RATE as f64;
        if !(0.5..1.5).contains(&time) {
            return 0.0;
        }
        let open = 0.5 + 0.5 * (TAU * 1.3 * time).sin();
        let formants = [(350.0 + 450.0 * open, 1.0), (2000.0 - 800.0 * open, 0.5), (2600.0, 0.25)];
        let harmonics = (1..30).map(f64::from).take_while(|number| number * pitch <= 4500.0);
        let tone: f64 = harmonics
            .map(|number| {
                let near = |formant: f64| (-((number * pitch - formant) / 200.0).powi(2)).exp();
                let loud = 0.02 + formants.iter().map(|(formant, by)| by * near(*formant)).sum::<f64>();
                loud * (number * phase).sin() * number.powf(-0.3)
            })
            .sum();
        let syllable = (TAU * 4.0 * (time - 0.5)).sin().max(0.0).sqrt();
        (0.1 * syllable * tone) as f32
    };
    (0..2 * RATE).map(sample).collect()
}

/// Formats probabilities as a line of block characters.
pub fn drawn(probabilities: &[f32]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    probabilities.iter().map(|probability| BLOCKS[((probability * 8.0) as usize).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::{RATE, drawn, voice};

    #[test]
    fn the_signal_is_silent_at_both_ends() {
        let signal = voice(180.0);
        assert_eq!(signal.len(), 2 * RATE);
        assert!(signal[..RATE / 2].iter().chain(&signal[3 * RATE / 2..]).all(|sample| *sample == 0.0));
        assert!(signal.iter().any(|sample| sample.abs() > 0.05));
    }

    #[test]
    fn probabilities_are_drawn() {
        assert_eq!(drawn(&[0.0, 0.5, 1.0]), "▁▅█");
    }
}
