//! The modules of a crate as its `mod` lines declare them, what each imports, and what each calls.
//!
//! Owns the reading of sources: test code is left out, and a name that a `mod.rs` only hands on belongs to the module
//! that defines it. Refuses to know which import is allowed ([`super::rules`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree};

/// Sources by their path below the root of the repository.
pub type Sources = BTreeMap<String, String>;

/// A module by its full name, such as `twinspan::cluster::writer`.
pub type Name = String;

#[derive(Debug, Default)]
pub struct Module {
    /// Its file, below the root of the repository.
    pub file: String,
    /// Other modules that it names, apart from those whose names it only hands on.
    pub imports: BTreeSet<Name>,
    /// Other crates that its `use` lines name, with the rest of the path.
    pub crates: BTreeSet<String>,
    /// Every identifier outside comments and texts.
    pub words: BTreeSet<String>,
    /// Every method call, with the number of its arguments.
    pub calls: BTreeSet<(String, usize)>,
    /// Every function and method with a body.
    pub functions: Vec<Function>,
    /// Paths as they are written; resolved into `imports` once every module is read.
    paths: Vec<Vec<String>>,
    /// `pub use` lines: the name that is handed on, and the path that it comes from.
    handed_on: BTreeMap<String, Vec<String>>,
}

pub type Modules = BTreeMap<Name, Module>;

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub public: bool,
    /// Every identifier in its body.
    pub words: BTreeSet<String>,
    /// Every method call in its body, with the number of its arguments.
    pub calls: BTreeSet<(String, usize)>,
}

/// Reads every source below `src` and `core/src`.
pub fn read(root: &Path) -> Sources {
    let mut sources = Sources::new();
    let mut folders = vec![root.join("src"), root.join("core/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

/// Every module that the two crates declare outside tests.
pub fn modules(sources: &Sources) -> Modules {
    let mut modules = Modules::new();
    for (krate, folder) in [("twinspan", "src"), ("twinspan_core", "core/src")] {
        declare(sources, krate.to_owned(), format!("{folder}/lib.rs"), folder, &mut modules);
    }
    let resolved: Vec<(Name, BTreeSet<Name>)> = modules
        .iter()
        .map(|(name, module)| {
            let targets = module.paths.iter().filter_map(|path| resolve(&modules, name, path));
            (name.clone(), targets.filter(|target| target != name).collect())
        })
        .collect();
    for (name, imports) in resolved {
        modules.get_mut(&name).unwrap().imports = imports;
    }
    modules
}

/// Reads a module and those that it declares. `folder` holds the files of its children.
fn declare(sources: &Sources, name: Name, file: String, folder: &str, modules: &mut Modules) {
    let source = sources.get(&file).unwrap_or_else(|| panic!("{name} is declared, and {file} does not exist"));
    let parsed = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let is_face = file.ends_with("/mod.rs") || file.ends_with("/lib.rs");
    let mut module = Module { file, ..Module::default() };
    for item in parsed.items {
        if attributes(&item).iter().any(is_test_only) {
            continue;
        }
        match item {
            Item::Mod(child) => {
                let child_name = child.ident.to_string();
                assert!(child.content.is_none(), "{name}::{child_name}: a module has a file of its own");
                let leaf = format!("{folder}/{child_name}.rs");
                let below = format!("{folder}/{child_name}");
                let file = if sources.contains_key(&leaf) { leaf } else { format!("{below}/mod.rs") };
                declare(sources, format!("{name}::{child_name}"), file, &below, modules);
            }
            Item::Use(item) => {
                let public = !matches!(item.vis, syn::Visibility::Inherited);
                let mut paths = Vec::new();
                flatten(&item.tree, &mut Vec::new(), &mut paths);
                for (path, called) in paths {
                    let own = ["crate", "self", "super", "twinspan_core"].contains(&path[0].as_str());
                    let child = sources.contains_key(&format!("{folder}/{}.rs", path[0]))
                        || sources.contains_key(&format!("{folder}/{}/mod.rs", path[0]));
                    if !own && !child {
                        module.crates.insert(path.join("::"));
                    } else {
                        // A `mod.rs` may hand a name on without using it; another file that does so uses it.
                        if !public || !is_face {
                            module.paths.push(path.clone());
                        }
                        if public {
                            module.handed_on.insert(called, path);
                        }
                    }
                }
            }
            item => {
                functions(&item, &mut module.functions);
                scan(&item.to_token_stream(), &mut module);
            }
        }
    }
    modules.insert(name, module);
}

fn functions(item: &Item, found: &mut Vec<Function>) {
    let mut add = |visibility: &syn::Visibility, signature: &syn::Signature, block: &syn::Block| {
        let mut body = Module::default();
        scan(&block.to_token_stream(), &mut body);
        found.push(Function {
            name: signature.ident.to_string(),
            public: !matches!(visibility, syn::Visibility::Inherited),
            words: body.words,
            calls: body.calls,
        });
    };
    match item {
        Item::Fn(item) => add(&item.vis, &item.sig, &item.block),
        Item::Impl(item) => item.items.iter().for_each(|item| {
            if let syn::ImplItem::Fn(item) = item {
                add(&item.vis, &item.sig, &item.block);
            }
        }),
        _ => {}
    }
}

/// The module that a path leads to, seen from another one.
fn resolve(modules: &Modules, from: &str, path: &[String]) -> Option<Name> {
    let krate = from.split("::").next().unwrap();
    let mut at = match path[0].as_str() {
        "crate" => krate.to_owned(),
        "twinspan_core" => "twinspan_core".to_owned(),
        "self" => from.to_owned(),
        "super" => from.rsplit_once("::")?.0.to_owned(),
        child => format!("{from}::{child}"),
    };
    for (index, segment) in path.iter().enumerate().skip(1) {
        let child = format!("{at}::{segment}");
        if segment == "super" {
            at = at.rsplit_once("::")?.0.to_owned();
        } else if modules.contains_key(&child) {
            at = child;
        } else if let Some(source) = modules.get(&at).and_then(|module| module.handed_on.get(segment)) {
            let whole: Vec<String> = source.iter().chain(&path[index + 1..]).cloned().collect();
            return resolve(modules, &at, &whole);
        } else {
            break;
        }
    }
    modules.contains_key(&at).then_some(at)
}

/// `a::{b, c as d}` → `a::b` as `b`, and `a::c` as `d`.
fn flatten(tree: &UseTree, before: &mut Vec<String>, paths: &mut Vec<(Vec<String>, String)>) {
    let mut leaf = |name: &syn::Ident, called: &syn::Ident| {
        let own = (name != "self").then(|| name.to_string());
        let path: Vec<String> = before.iter().cloned().chain(own).collect();
        paths.push((path, called.to_string()));
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
            before.pop();
        }
        UseTree::Name(name) => leaf(&name.ident, &name.ident),
        UseTree::Rename(rename) => leaf(&rename.ident, &rename.rename),
        UseTree::Glob(_) => panic!("`use {}::*` hides what is imported", before.join("::")),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, paths)),
    }
}

/// Collects identifiers, calls and inline paths, also inside macros, which have no syntax tree.
fn scan(tokens: &TokenStream, module: &mut Module) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => scan(&group.stream(), module),
            TokenTree::Ident(ident) => {
                let ident = ident.to_string();
                let after_dot = index > 0 && is_punct(&tokens[index - 1], '.');
                if let Some(TokenTree::Group(group)) = tokens.get(index + 1)
                    && after_dot
                    && group.delimiter() == Delimiter::Parenthesis
                {
                    module.calls.insert((ident.clone(), arguments(&group.stream())));
                }
                let after_colon = index > 0 && is_punct(&tokens[index - 1], ':');
                // A path that begins with the name of a child module leads there; any other name leads nowhere.
                if !after_colon {
                    let path = inline_path(&tokens[index..]);
                    if path.len() > 1 {
                        module.paths.push(path);
                    }
                }
                module.words.insert(ident);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// `crate :: a :: B …` → its segments.
fn inline_path(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let Some(TokenTree::Ident(ident)) = rest.first() {
        path.push(ident.to_string());
        match rest {
            [_, one, two, ..] if is_punct(one, ':') && is_punct(two, ':') => rest = &rest[3..],
            _ => break,
        }
    }
    path
}

fn arguments(tokens: &TokenStream) -> usize {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let commas = tokens.iter().filter(|token| is_punct(token, ',')).count();
    let trailing = tokens.last().is_some_and(|token| is_punct(token, ','));
    if tokens.is_empty() { 0 } else { commas + 1 - usize::from(trailing) }
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

pub fn is_test_only(attribute: &Attribute) -> bool {
    let condition = attribute.meta.to_token_stream().to_string().replace(' ', "");
    condition == "cfg(test)"
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        other => panic!("an item of this kind is not expected: {}", other.to_token_stream()),
    }
}
