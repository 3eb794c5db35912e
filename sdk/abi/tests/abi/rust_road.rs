//! The types that the Rust road hands across, as `abi_stable` describes them.

use std::collections::BTreeMap;

use abi_stable::StableAbi as _;
use abi_stable::type_layout::{TLData, TLField, TLFields, TypeLayout};
use fp8flow_sdk::abi::objects::{BackendBox, HostBox, KernelsBox, LinearBox, PluginModuleRef, RecipeBox};

use crate::snapshot::Section;

/// Every type of the SDK's own that can be reached from the module and the objects. Those of `abi_stable` are pinned by
/// its version, which stands first.
pub(crate) fn sections() -> Vec<Section> {
    let mut types = BTreeMap::new();
    let roots = [
        PluginModuleRef::LAYOUT,
        HostBox::LAYOUT,
        BackendBox::LAYOUT,
        RecipeBox::LAYOUT,
        LinearBox::LAYOUT,
        KernelsBox::LAYOUT,
    ];
    let mut seen = Vec::new();
    for root in roots {
        visit(root, &mut seen, &mut types);
    }
    types.into_values().collect()
}

fn visit(
    layout: &'static TypeLayout,
    seen: &mut Vec<*const TypeLayout>,
    types: &mut BTreeMap<String, Section>,
) {
    if seen.contains(&std::ptr::from_ref(layout)) {
        return;
    }
    seen.push(layout);
    let (kind, fields, first_suffix) = match layout.data() {
        TLData::Struct { fields } => ("struct", Some(fields), None),
        TLData::PrefixType(prefix) => ("table", Some(prefix.fields), Some(prefix.first_suffix_field)),
        _ => ("", None, None),
    };
    if layout.package() == "fp8flow-sdk"
        && let Some(fields) = fields
    {
        // A table is as large as it has grown; its first part, which is always there, stays as it is.
        let (grows, rest) = match first_suffix {
            Some(first) => (true, format!("{first} methods always there")),
            None => (false, format!("size {} align {}", layout.size(), layout.alignment())),
        };
        // The table of an object's methods lies in a module of its own, named after the trait.
        let module = layout.mod_path().to_string();
        let module = module.rsplit("::").next().unwrap_or_default();
        let head = format!("rust {kind} {module}::{}, {rest}", layout.full_type());
        types.insert(head.clone(), Section { head, grows, lines: lines(fields) });
    }
    for field in fields.into_iter().flatten() {
        visit(field.layout(), seen, types);
        for function in field.function_range() {
            for parameter in function.param_type_layouts.iter() {
                visit(parameter(), seen, types);
            }
            if let Some(returned) = function.return_type_layout() {
                visit(returned(), seen, types);
            }
        }
    }
    if let TLData::Enum(of) = layout.data() {
        of.fields.into_iter().for_each(|field| visit(field.layout(), seen, types));
    }
    layout.phantom_fields().into_iter().for_each(|field| visit(field.layout(), seen, types));
    if let Some(checks) = layout.extra_checks() {
        checks.nested_type_layouts().iter().for_each(|layout| visit(layout, seen, types));
    }
}

fn lines(fields: TLFields) -> Vec<String> {
    fields.into_iter().map(|field| format!("{}: {}", field.name(), type_of(field))).collect()
}

/// A field's type; of a function, its parameters and what it returns.
fn type_of(field: TLField) -> String {
    let functions = field.function_range().iter().map(|function| {
        let parameters: Vec<_> = function.param_type_layouts.iter().map(|layout| name(layout())).collect();
        let returned = function.return_type_layout().map_or("()".to_owned(), |layout| name(layout()));
        format!("fn({}) -> {returned}", parameters.join(", "))
    });
    let functions: Vec<_> = functions.collect();
    if functions.is_empty() { name(field.layout()) } else { functions.join(" ") }
}

/// A type with what it holds: `abi_stable` leaves the parameters of enums out of their names.
fn name(layout: &'static TypeLayout) -> String {
    let name = layout.full_type().to_string();
    let TLData::Enum(of) = layout.data() else { return name };
    let held: Vec<_> = of.fields.into_iter().map(|field| self::name(field.layout())).collect();
    format!("{name}<{}>", held.join(", "))
}
