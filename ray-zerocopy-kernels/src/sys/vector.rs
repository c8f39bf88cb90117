//! Vectors of `f32`, with the operations of an attention.
//!
//! A kernel is generic in its vector, and a function with `target_feature` contains it. All functions are inlined into
//! that one, since the instructions exist only there.

/// Some elements, in a register.
///
/// # Safety
/// The functions are only called if the processor has the instructions of the type. Those that read or write memory get
/// an address where all of their elements are.
pub(super) trait Vector: Copy {
    /// Number of elements.
    const LANES: usize;

    /// All elements are `x`.
    unsafe fn splat(x: f32) -> Self;
    /// Reads the elements.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes the elements.
    unsafe fn store(self, to: *mut f32);
    /// Returns `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// Returns `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// Returns `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// Returns `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// Returns `self · factor + summand`.
    unsafe fn multiply_add(self, factor: Self, summand: Self) -> Self;
    /// The larger elements. Where `self` is NaN, the result is NaN or that of `other`.
    unsafe fn max(self, other: Self) -> Self;
    /// Shifts the bits of each element to the left by those of a mantissa.
    unsafe fn shift_mantissa(self) -> Self;
    /// Replaces elements by 0 where those of `x` are less than those of `least`.
    unsafe fn zero_if_less(self, x: Self, least: Self) -> Self;
    /// Replaces elements by those of `fill` where bytes are not 0.
    unsafe fn replace(self, bytes: *const u8, fill: Self) -> Self;
}

/// Implements [`Vector`] with one function for each operation.
macro_rules! vector {
    (
        $vector:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident,
        $div:ident, $multiply_add:ident, $max:ident, $shift_mantissa:ident, $zero_if_less:ident, $replace:ident
    ) => {
        impl Vector for $vector {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: the processor has the instructions, as the caller guarantees.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above, and so are the elements at the address.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { $store(to, self) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $add(self, other) }
            }

            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $sub(self, other) }
            }

            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $mul(self, other) }
            }

            #[inline(always)]
            unsafe fn div(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $div(self, other) }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, factor: Self, summand: Self) -> Self {
                // SAFETY: as above.
                unsafe { $multiply_add(self, factor, summand) }
            }

            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { $max(self, other) }
            }

            #[inline(always)]
            unsafe fn shift_mantissa(self) -> Self {
                // SAFETY: as above.
                unsafe { $shift_mantissa(self) }
            }

            #[inline(always)]
            unsafe fn zero_if_less(self, x: Self, least: Self) -> Self {
                // SAFETY: as above.
                unsafe { $zero_if_less(self, x, least) }
            }

            #[inline(always)]
            unsafe fn replace(self, bytes: *const u8, fill: Self) -> Self {
                // SAFETY: as above, and so are the bytes at the address.
                unsafe { $replace(self, bytes, fill) }
            }
        }
    };
}

/// Bits of a mantissa.
const MANTISSA: u32 = 23;

/// A vector of any processor.
pub(super) type Portable = [f32; 4];

#[inline(always)]
fn each(one: Portable, other: Portable, compute: impl Fn(f32, f32) -> f32) -> Portable {
    [compute(one[0], other[0]), compute(one[1], other[1]), compute(one[2], other[2]), compute(one[3], other[3])]
}

impl Vector for Portable {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the elements are at the address, as the caller guarantees.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        each(self, other, |one, other| one + other)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        each(self, other, |one, other| one - other)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        each(self, other, |one, other| one * other)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        each(self, other, |one, other| one / other)
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, summand: Self) -> Self {
        // Not `mul_add`: it is a function of the C library where the processor may not have the instruction.
        each(each(self, factor, |one, other| one * other), summand, |one, other| one + other)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        each(self, other, |one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    unsafe fn shift_mantissa(self) -> Self {
        each(self, self, |one, _| f32::from_bits(one.to_bits() << MANTISSA))
    }

    #[inline(always)]
    unsafe fn zero_if_less(self, x: Self, least: Self) -> Self {
        let is_less = each(x, least, |x, least| f32::from(u8::from(x < least)));
        each(self, is_less, |one, is_less| if is_less == 0.0 { one } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn replace(self, bytes: *const u8, fill: Self) -> Self {
        // SAFETY: the bytes are at the address, as the caller guarantees.
        let bytes = unsafe { bytes.cast::<[u8; 4]>().read() };
        let mut result = self;
        for (lane, byte) in bytes.into_iter().enumerate() {
            if byte != 0 {
                result[lane] = fill[lane];
            }
        }
        result
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _CMP_NLT_UQ, _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_ps, _mm256_and_ps, _mm256_blendv_ps,
        _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi32, _mm256_cvtepu8_epi32,
        _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_set1_ps,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_castps_si512,
        _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepu8_epi32, _mm512_div_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_mask_blend_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32,
        _mm512_storeu_ps, _mm512_sub_ps, _mm512_test_epi32_mask,
    };

    use super::{MANTISSA, Vector};

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn shift_mantissa_512(x: __m512) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<MANTISSA>(_mm512_castps_si512(x)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero_if_less_512(result: __m512, x: __m512, least: __m512) -> __m512 {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, least), result)
    }

    /// Replaces elements where bytes are not 0.
    ///
    /// # Safety
    /// 16 bytes are at the address.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn replace_512(x: __m512, bytes: *const u8, fill: __m512) -> __m512 {
        // SAFETY: the caller guarantees it.
        let bytes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.cast()) });
        _mm512_mask_blend_ps(_mm512_test_epi32_mask(bytes, bytes), x, fill)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_mantissa_256(x: __m256) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<{ MANTISSA as i32 }>(_mm256_castps_si256(x)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero_if_less_256(result: __m256, x: __m256, least: __m256) -> __m256 {
        _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, least), result)
    }

    /// Replaces elements where bytes are not 0.
    ///
    /// # Safety
    /// 8 bytes are at the address.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn replace_256(x: __m256, bytes: *const u8, fill: __m256) -> __m256 {
        // SAFETY: the caller guarantees it.
        let bytes = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.cast()) });
        let is_zero = _mm256_cmpeq_epi32(bytes, _mm256_setzero_si256());
        _mm256_blendv_ps(fill, x, _mm256_castsi256_ps(is_zero))
    }

    // The maximum of x86 is the second operand if one of them is NaN.
    vector! {
        __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps,
        _mm512_div_ps, _mm512_fmadd_ps, _mm512_max_ps, shift_mantissa_512, zero_if_less_512, replace_512
    }

    vector! {
        __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps,
        _mm256_div_ps, _mm256_fmadd_ps, _mm256_max_ps, shift_mantissa_256, zero_if_less_256, replace_256
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vandq_u32, vbslq_f32, vceqzq_u32, vcltq_f32, vcreate_u8, vdivq_f32, vdupq_n_f32,
        vfmaq_f32, vget_low_u16, vld1q_f32, vmaxq_f32, vmovl_u8, vmovl_u16, vmulq_f32, vmvnq_u32,
        vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshlq_n_u32, vst1q_f32, vsubq_f32,
    };

    use super::{MANTISSA, Vector};

    #[inline]
    #[target_feature(enable = "neon")]
    fn multiply_add(x: float32x4_t, factor: float32x4_t, summand: float32x4_t) -> float32x4_t {
        vfmaq_f32(summand, x, factor)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn shift_mantissa(x: float32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vshlq_n_u32::<{ MANTISSA as i32 }>(vreinterpretq_u32_f32(x)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn zero_if_less(result: float32x4_t, x: float32x4_t, least: float32x4_t) -> float32x4_t {
        let stays = vmvnq_u32(vcltq_f32(x, least));
        vreinterpretq_f32_u32(vandq_u32(stays, vreinterpretq_u32_f32(result)))
    }

    /// Replaces elements where bytes are not 0.
    ///
    /// # Safety
    /// 4 bytes are at the address.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn replace(x: float32x4_t, bytes: *const u8, fill: float32x4_t) -> float32x4_t {
        // SAFETY: the caller guarantees it.
        let bytes = unsafe { bytes.cast::<u32>().read_unaligned() };
        let bytes = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(bytes)))));
        vbslq_f32(vceqzq_u32(bytes), x, fill)
    }

    vector! {
        float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vaddq_f32, vsubq_f32, vmulq_f32, vdivq_f32, multiply_add,
        vmaxq_f32, shift_mantissa, zero_if_less, replace
    }
}
