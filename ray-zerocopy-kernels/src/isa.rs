//! Instruction sets of processors.

use std::fmt;
use std::sync::OnceLock;

/// The instructions that kernels use. Each one of x86-64 includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Those that every processor of the target has.
    Portable,
    /// NEON of AArch64.
    Neon,
    /// AVX2 and FMA of x86-64.
    Avx2,
    /// AVX-512F of x86-64.
    Avx512,
    /// AVX-512F, BW and VNNI of x86-64: dot products of 8-bit numbers.
    Avx512Vnni,
}

static BEST: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// All of them, the best one last.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Vnni];

    /// The best one that this processor has. `RAY_ZEROCOPY_ISA` may name a lesser one: `portable`, `avx2`, `avx512`.
    pub fn best() -> Self {
        *BEST.get_or_init(|| {
            let named = std::env::var("RAY_ZEROCOPY_ISA").ok();
            let most = match named.as_deref() {
                Some("portable") => Self::Portable,
                Some("avx2") => Self::Avx2,
                Some("avx512") => Self::Avx512,
                _ => Self::Avx512Vnni,
            };
            let has = |isa: &Self| *isa <= most && isa.is_present();
            Self::ALL.into_iter().rfind(has).unwrap_or(Self::Portable)
        })
    }

    /// What [`best`](Self::best) has returned in this process. `None` if nothing has called it: no kernel was used.
    pub fn in_use() -> Option<Self> {
        BEST.get().copied()
    }

    /// Returns `true` if this processor has the instructions.
    #[inline]
    pub fn is_present(self) -> bool {
        /// A bit for each instruction set.
        static PRESENT: OnceLock<u8> = OnceLock::new();
        let bit = |isa: Self| 1 << isa as u8;
        let all = || Self::ALL.into_iter().filter(|isa| isa.detect()).map(bit).sum();
        PRESENT.get_or_init(all) & bit(self) != 0
    }

    fn detect(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(all(target_arch = "aarch64", target_feature = "neon")),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.detect(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") && Self::Avx512.detect()
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Avx512Vnni => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Neon => "NEON",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 VNNI",
        })
    }
}
