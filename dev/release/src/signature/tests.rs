//! Keys and signatures, on a key pair of cosign's own code.

use super::*;

/// Made by `cosign generate-key-pair`, and never used for anything else.
pub(crate) const PRIVATE: &str = include_str!("test.key");
pub(crate) const PUBLIC: &str = include_str!("test.pub");
pub(crate) const PASSWORD: &str = "open sesame";

#[test]
fn a_key_of_cosign_is_opened_with_its_password_alone() {
    let key = Key::open(PRIVATE, PASSWORD).unwrap();
    assert_eq!(key.public().unwrap(), PUBLIC);
    let error = Key::open(PRIVATE, "open barley").unwrap_err();
    assert_eq!(error.to_string(), "the password is wrong");
    let error = Key::open(PUBLIC, PASSWORD).unwrap_err();
    assert!(error.to_string().contains("'PUBLIC KEY' is no key"), "{error}");
}

#[test]
fn a_signature_is_of_its_content_and_always_the_same() {
    let key = Key::open(PRIVATE, PASSWORD).unwrap();
    let signed = key.sign(b"content");
    assert_eq!(key.sign(b"content"), signed);
    let public = PublicKey::parse(PUBLIC).unwrap();
    public.verify(b"content", &signed).unwrap();
    public.verify(b"another content", &signed).unwrap_err();
    public.verify(b"content", "c2lnbmF0dXJl").unwrap_err();
}

#[test]
fn the_tag_is_the_one_that_cosign_looks_for() {
    assert_eq!(tag("sha256:00ff"), "sha256-00ff.sig");
}
