//! Error numbers by name, as in the kernel's `include/uapi/asm-generic/errno-base.h` and `errno.h`.

use std::fmt;

/// One error number of the kernel's user interface, 1 to 133, named as the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

impl Errno {
    /// `ENOMEM`, what a failed allocation reports.
    pub const ENOMEM: Self = Self(12);
    /// `EIO`, what a failed read or write reports.
    pub const EIO: Self = Self(5);

    /// The error number called `name`, such as `"ENOMEM"`; some have a second name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().chain(SECOND_NAMES).find(|(_, known)| *known == name).map(|(number, _)| Self(*number))
    }

    /// The positive error number `number`, if the kernel has it.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        NAMES.iter().find(|(known, _)| i64::from(*known) == number).map(|(known, _)| Self(*known))
    }

    /// The positive number, as user space sees it in `errno`.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// The name, such as `"ENOMEM"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.0).map_or("E?", |(_, name)| name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Second names of error numbers in user space.
const SECOND_NAMES: &[(u16, &str)] = &[(11, "EWOULDBLOCK"), (35, "EDEADLOCK"), (95, "ENOTSUP")];

#[rustfmt::skip]
const NAMES: &[(u16, &str)] = &[
    (1, "EPERM"), (2, "ENOENT"), (3, "ESRCH"), (4, "EINTR"), (5, "EIO"), (6, "ENXIO"), (7, "E2BIG"), (8, "ENOEXEC"),
    (9, "EBADF"), (10, "ECHILD"), (11, "EAGAIN"), (12, "ENOMEM"), (13, "EACCES"), (14, "EFAULT"), (15, "ENOTBLK"),
    (16, "EBUSY"), (17, "EEXIST"), (18, "EXDEV"), (19, "ENODEV"), (20, "ENOTDIR"), (21, "EISDIR"), (22, "EINVAL"),
    (23, "ENFILE"), (24, "EMFILE"), (25, "ENOTTY"), (26, "ETXTBSY"), (27, "EFBIG"), (28, "ENOSPC"), (29, "ESPIPE"),
    (30, "EROFS"), (31, "EMLINK"), (32, "EPIPE"), (33, "EDOM"), (34, "ERANGE"), (35, "EDEADLK"),
    (36, "ENAMETOOLONG"), (37, "ENOLCK"), (38, "ENOSYS"), (39, "ENOTEMPTY"), (40, "ELOOP"), (42, "ENOMSG"),
    (43, "EIDRM"), (44, "ECHRNG"), (45, "EL2NSYNC"), (46, "EL3HLT"), (47, "EL3RST"), (48, "ELNRNG"),
    (49, "EUNATCH"), (50, "ENOCSI"), (51, "EL2HLT"), (52, "EBADE"), (53, "EBADR"), (54, "EXFULL"), (55, "ENOANO"),
    (56, "EBADRQC"), (57, "EBADSLT"), (59, "EBFONT"), (60, "ENOSTR"), (61, "ENODATA"), (62, "ETIME"), (63, "ENOSR"),
    (64, "ENONET"), (65, "ENOPKG"), (66, "EREMOTE"), (67, "ENOLINK"), (68, "EADV"), (69, "ESRMNT"), (70, "ECOMM"),
    (71, "EPROTO"), (72, "EMULTIHOP"), (73, "EDOTDOT"), (74, "EBADMSG"), (75, "EOVERFLOW"), (76, "ENOTUNIQ"),
    (77, "EBADFD"), (78, "EREMCHG"), (79, "ELIBACC"), (80, "ELIBBAD"), (81, "ELIBSCN"), (82, "ELIBMAX"),
    (83, "ELIBEXEC"), (84, "EILSEQ"), (85, "ERESTART"), (86, "ESTRPIPE"), (87, "EUSERS"), (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"), (90, "EMSGSIZE"), (91, "EPROTOTYPE"), (92, "ENOPROTOOPT"), (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"), (95, "EOPNOTSUPP"), (96, "EPFNOSUPPORT"), (97, "EAFNOSUPPORT"), (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"), (100, "ENETDOWN"), (101, "ENETUNREACH"), (102, "ENETRESET"), (103, "ECONNABORTED"),
    (104, "ECONNRESET"), (105, "ENOBUFS"), (106, "EISCONN"), (107, "ENOTCONN"), (108, "ESHUTDOWN"),
    (109, "ETOOMANYREFS"), (110, "ETIMEDOUT"), (111, "ECONNREFUSED"), (112, "EHOSTDOWN"), (113, "EHOSTUNREACH"),
    (114, "EALREADY"), (115, "EINPROGRESS"), (116, "ESTALE"), (117, "EUCLEAN"), (118, "ENOTNAM"), (119, "ENAVAIL"),
    (120, "EISNAM"), (121, "EREMOTEIO"), (122, "EDQUOT"), (123, "ENOMEDIUM"), (124, "EMEDIUMTYPE"),
    (125, "ECANCELED"), (126, "ENOKEY"), (127, "EKEYEXPIRED"), (128, "EKEYREVOKED"), (129, "EKEYREJECTED"),
    (130, "EOWNERDEAD"), (131, "ENOTRECOVERABLE"), (132, "ERFKILL"), (133, "EHWPOISON"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(Errno::from_name("ENOMEM"), Some(Errno::ENOMEM));
        assert_eq!(Errno::from_number(5), Some(Errno::EIO));
        for (number, name) in NAMES {
            assert_eq!(Errno::from_name(name).map(Errno::number), Some(*number));
            assert_eq!(Errno::from_number(i64::from(*number)).map(Errno::name), Some(*name));
        }
    }

    #[test]
    fn the_names_are_the_kernel_s() {
        for (number, name, second) in
            [(11, "EAGAIN", "EWOULDBLOCK"), (35, "EDEADLK", "EDEADLOCK"), (95, "EOPNOTSUPP", "ENOTSUP")]
        {
            let errno = Errno::from_number(number).unwrap();
            assert_eq!(errno.name(), name);
            assert_eq!((Errno::from_name(name), Errno::from_name(second)), (Some(errno), Some(errno)));
        }
        for (number, name) in [(1, "EPERM"), (28, "ENOSPC"), (40, "ELOOP"), (117, "EUCLEAN"), (133, "EHWPOISON")] {
            assert_eq!(Errno::from_number(number).map(Errno::name), Some(name));
        }
        assert_eq!([0, 41, 58, 134].map(Errno::from_number), [None; 4]);
    }

    #[test]
    fn what_is_no_errno_is_refused() {
        assert_eq!(Errno::from_name("enomem"), None);
        assert_eq!(Errno::from_number(0), None);
        assert_eq!(Errno::from_number(-12), None);
    }
}
