//! Marks of the dirty map.

/// Which of the `count` bytes from `marks` on are not 0. They are read eight at once, as mostly
/// none is.
///
/// # Safety
///
/// They stay mapped for as long as the iterator lives, and begin and end at multiples of eight
/// bytes.
pub(super) unsafe fn marked(marks: *const u8, count: usize) -> impl Iterator<Item = usize> {
    let marks: *const [u8; 8] = marks.cast();
    (0..count / 8).flat_map(move |word| {
        // SAFETY: it is one of the words of which the caller speaks.
        let bytes = unsafe { marks.add(word).cast::<u64>().read_volatile() }.to_ne_bytes();
        let most = if bytes == [0; 8] { 0 } else { 8 };
        (0..most).filter(move |byte| bytes[*byte] != 0).map(move |byte| word * 8 + byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_order() {
        let mut marks = [0_u64; 4];
        // SAFETY: the bytes are those of the array, which outlives what looks at them.
        let mut found = |at: &[usize]| unsafe {
            let bytes: *mut u8 = marks.as_mut_ptr().cast();
            at.iter().for_each(|byte| bytes.add(*byte).write(1));
            marked(bytes, size_of_val(&marks)).collect::<Vec<_>>()
        };
        assert!(found(&[]).is_empty());
        assert_eq!(found(&[8, 15]), [8, 15]);
        assert_eq!(found(&[0, 31]), [0, 8, 15, 31]);
    }
}
