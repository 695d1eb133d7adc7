//! The number of an injection site.

/// Hashes an injection site in a step and a scope: these, the function's name id, then the
/// callers', innermost first.
///
/// Name ids depend on nothing but the kernel's symbols, hence so does the result: it is the same in
/// every guest with the same kernel build.
#[derive(Clone, Copy, Debug)]
pub struct SiteKey(u64);

/// 2^64 divided by the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl SiteKey {
    /// The key of `function` without callers, in the step of this number and this scope.
    #[inline(always)]
    #[must_use]
    pub const fn new(step: u32, scope: u8, function: u32) -> Self {
        Self(MULTIPLIER).caller(step | (scope as u32) << 16).caller(function)
    }

    /// The key with one more caller.
    #[inline(always)]
    #[must_use]
    pub const fn caller(self, name: u32) -> Self {
        let mixed = (self.0 ^ name as u64).wrapping_mul(MULTIPLIER);
        Self(mixed ^ (mixed >> 32))
    }

    /// The number; never 0, which marks a free slot.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u64 {
        if self.0 == 0 { 1 } else { self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: u32, function: u32, callers: &[u32]) -> u64 {
        key_in(step, crate::WORKLOAD, function, callers)
    }

    fn key_in(step: u32, scope: u8, function: u32, callers: &[u32]) -> u64 {
        callers.iter().fold(SiteKey::new(step, scope, function), |key, name| key.caller(*name)).finish()
    }

    #[test]
    fn every_part_of_a_site_counts() {
        assert_eq!(key(1, 1, &[2, 3]), key(1, 1, &[2, 3]));
        assert_ne!(key(1, 1, &[2, 3]), key(1, 1, &[3, 2]));
        assert_ne!(key(1, 1, &[2, 3]), key(1, 2, &[2, 3]));
        assert_ne!(key(1, 1, &[2, 3]), key(1, 1, &[2, 3, 0]));
        assert_ne!(key(1, 1, &[2, 3]), key(1, 1, &[2]));
        assert_ne!(key(1, 1, &[2, 3]), key(2, 1, &[2, 3]));
        assert_ne!(key(1, 1, &[2, 3]), key_in(1, crate::WORKER, 1, &[2, 3]));
    }

    #[test]
    fn keys_spread_over_the_slots() {
        let slots = crate::SITE_SLOTS as u64;
        let mut used = [false; crate::SITE_SLOTS];
        for caller in 0..4096 {
            used[(key(1, 7, &[caller, caller / 3, 9]) % slots) as usize] = true;
        }
        // 4096 balls in 16384 bins leave 3624 bins hit on average, with a deviation of about 20.
        let hit = used.iter().filter(|used| **used).count();
        assert!((3500..3750).contains(&hit), "{hit}");
    }
}
