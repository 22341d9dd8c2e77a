//! Whether this processor can run this build: a sentence instead of death by signal.

/// This build's kernels need x86-64-v3 (AVX2, FMA, BMI2, F16C; Intel Haswell of 2013, AMD Zen).
///
/// Asks the processor itself: the compiler's own detection is settled at compile time by the target that it checks.
#[cfg(target_arch = "x86_64")]
pub(crate) fn check() -> Result<(), &'static str> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    const FMA: u32 = 1 << 12;
    const F16C: u32 = 1 << 29;
    const AVX2: u32 = 1 << 5;
    const BMI2: u32 = 1 << 8;
    let extended = __cpuid(0).eax >= 7;
    let (one, seven) = (__cpuid(1).ecx, if extended { __cpuid_count(7, 0).ebx } else { 0 });
    if one & (FMA | F16C) == (FMA | F16C) && seven & (AVX2 | BMI2) == (AVX2 | BMI2) {
        return Ok(());
    }
    Err("this build needs a processor with AVX2 and FMA (x86-64-v3); build from source with another `target-cpu` in .cargo/config.toml")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn check() -> Result<(), &'static str> {
    Ok(())
}
