//! A small kernel image for tests, written byte by byte.

/// Address of its text.
pub(crate) const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Its build id.
pub(crate) const BUILD_ID: [u8; 20] = [
    0x00, 0x5d, 0x2a, 0x2c, 0x1d, 0xf8, 0x33, 0x29, 0xa2, 0x52, 0x2b, 0x7a, 0xae, 0x2e, 0xbf, 0x87, 0xf5, 0x9f, 0xcc,
    0xff,
];

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STB_GLOBAL: u8 = 1 << 4;
const EM_X86_64: u16 = 62;

/// An `e8`/`e9` with its distance, at offset `at` of the text, to offset `to`.
pub(crate) fn branch(text: &mut [u8], opcode: u8, at: usize, to: usize) {
    let distance = i32::try_from(to).unwrap() - i32::try_from(at + 5).unwrap();
    text[at] = opcode;
    text[at + 1..at + 5].copy_from_slice(&distance.to_le_bytes());
}

/// Name, type, flags, address, content, link, info, entry size.
type Section<'content> = (u32, u32, u64, u64, &'content [u8], u32, u32, u64);

/// An ELF image whose `.text` is `text` and whose symbols are `(name, offset in the text, size, is
/// a function)`; `_stext` and `_etext` are added.
pub(crate) fn image(text: &[u8], symbols: &[(&str, u64, u64, bool)]) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut table = vec![0u8; 24];
    let ends = [("_stext", 0, 0, false), ("_etext", text.len() as u64, 0, false)];
    for (name, offset, size, is_function) in symbols.iter().chain(&ends) {
        table.extend(u32::try_from(names.len()).unwrap().to_le_bytes());
        table.extend([STB_GLOBAL | if *is_function { STT_FUNC } else { STT_NOTYPE }, 0, 1, 0]);
        table.extend((TEXT + offset).to_le_bytes());
        table.extend(size.to_le_bytes());
        names.extend(name.bytes());
        names.push(0);
    }
    let mut note: Vec<u8> = [4u32, 20, 3].iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(b"GNU\0");
    note.extend(BUILD_ID);

    let section_names = b"\0.text\0.notes\0.symtab\0.strtab\0";
    let sections: [Section<'_>; 5] = [
        (1, 1, 6, TEXT, text, 0, 0, 0),
        (7, 7, 2, 0, &note, 0, 0, 0),
        (14, 2, 0, 0, &table, 4, 1, 24),
        (22, 3, 0, 0, &names, 0, 0, 0),
        (22, 3, 0, 0, section_names, 0, 0, 0),
    ];
    let mut headers = vec![0u8; 64];
    let mut content = Vec::new();
    for (name, kind, flags, address, bytes, link, info, entry) in sections {
        content.resize(content.len().next_multiple_of(8), 0);
        headers.extend(name.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        for word in [flags, address, 64 + content.len() as u64, bytes.len() as u64] {
            headers.extend(word.to_le_bytes());
        }
        headers.extend(link.to_le_bytes());
        headers.extend(info.to_le_bytes());
        headers.extend(4u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        content.extend(bytes);
    }
    content.resize(content.len().next_multiple_of(8), 0);

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(2u16.to_le_bytes());
    elf.extend(EM_X86_64.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    for word in [TEXT, 0, 64 + content.len() as u64] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 0, 0, 64, 6, 5] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(content);
    elf.extend(headers);
    elf
}

/// A kernel of 512 bytes: `callee` at 0, `alpha` at 32 with three PCs, `beta` at 200 with one and a
/// part of it split off, a tail jump, a call elsewhere.
pub(crate) fn kernel() -> Vec<u8> {
    let mut text = vec![0x90u8; 512];
    for at in [33, 60, 123, 210, 301] {
        branch(&mut text, 0xe8, at, 0);
    }
    branch(&mut text, 0xe9, 80, 0);
    branch(&mut text, 0xe8, 100, 32);
    let symbols = [
        ("__sanitizer_cov_trace_pc", 0, 16, true),
        ("__pfx_alpha", 16, 16, true),
        ("alpha", 32, 96, true),
        ("__alpha_alias", 32, 96, true),
        ("beta.isra.0", 200, 20, true),
        ("beta.cold", 300, 6, true),
        ("unsized", 400, 0, false),
        ("__x", 420, 8, true),
    ];
    image(&text, &symbols)
}
