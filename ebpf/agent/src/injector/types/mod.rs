//! The running kernel's types (BTF): constants of its enumerations, fields of its structures.
//!
//! ```text
//!   /sys/kernel/btf/vmlinux ── Btf ──┬─ constant("___GFP_NOFAIL_BIT") ─▶ 15
//!                                    ├─ field("bio.bi_iter.bi_sector") ─▶ offset, size
//!                                    └─ returned_by("bio_alloc_bioset") ─▶ a pointer
//! ```
//!
//! aya reads types as well, but tells none of these.

mod btf;
mod field;
mod function;

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use anyhow::{Context, Result, bail};

use self::btf::Btf;
pub(super) use self::field::Field;

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Constants and fields of the running kernel, each looked up once.
#[derive(Default)]
pub(super) struct Types {
    /// The file, as long as more is likely to be asked for.
    btf: Option<Btf>,
    constants: HashMap<String, Option<u64>>,
    fields: HashMap<String, Field>,
}

impl Types {
    /// The number of the constant `name`; nothing when the kernel does not tell it.
    ///
    /// # Errors
    ///
    /// The kernel's types cannot be understood.
    pub(super) fn constant(&mut self, name: &str) -> Result<Option<u64>> {
        if let Some(known) = self.constants.get(name) {
            return Ok(*known);
        }
        let number = match self.btf()? {
            Some(btf) => btf.constant(name).context(UNKNOWN_FORM)?,
            None => None,
        };
        self.constants.insert(name.to_owned(), number);
        Ok(number)
    }

    /// The field `STRUCTURE.MEMBER`, which may have further members behind more dots.
    ///
    /// # Errors
    ///
    /// The kernel has no such field, or one that is no number.
    pub(super) fn field(&mut self, path: &str) -> Result<Field> {
        if let Some(known) = self.fields.get(path) {
            return Ok(*known);
        }
        let Some(btf) = self.btf()? else {
            bail!("the kernel, built without CONFIG_DEBUG_INFO_BTF, tells nothing of the field \"{path}\"");
        };
        let found = field::find(btf, path)?;
        self.fields.insert(path.to_owned(), found);
        Ok(found)
    }

    /// The return types of the functions with these `names`, as [`abi::return_type`] has them. One
    /// that is missing is unknown.
    ///
    /// # Errors
    ///
    /// The kernel's types cannot be understood.
    pub(super) fn returned_by(&mut self, names: &HashSet<&str>) -> Result<HashMap<String, u8>> {
        Ok(self.btf()?.map_or_else(HashMap::new, |btf| function::returned_by(btf, names)))
    }

    /// Lets the file go, which takes some 5 MB.
    pub(super) fn forget(&mut self) {
        self.btf = None;
    }

    fn btf(&mut self) -> Result<Option<&Btf>> {
        if self.btf.is_none() {
            let Ok(bytes) = fs::read(TYPES) else { return Ok(None) };
            self.btf = Some(Btf::parse(bytes).context(UNKNOWN_FORM)?);
        }
        Ok(self.btf.as_ref())
    }

    #[cfg(test)]
    pub(super) fn of(constants: &[(&str, Option<u64>)], fields: &[(&str, Field)]) -> Self {
        Self {
            btf: None,
            constants: constants.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
            fields: fields.iter().map(|(path, field)| ((*path).to_owned(), *field)).collect(),
        }
    }
}

const UNKNOWN_FORM: &str = "the kernel's types, /sys/kernel/btf/vmlinux, are of an unknown form";
