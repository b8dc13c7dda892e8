//! JSON without what says nothing: fields of structs that are zero, false, none or empty are left
//! out, because reading fills them in again (`#[serde(default)]`).
//!
//! Most of an observation is zeros, so this is what makes a record small and cheap to write. A
//! `Some` stays whatever it holds, and entries of lists and maps always stay. Fractions are written
//! to a millionth.

use std::fmt::Display;
use std::io::Write;

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

type Error = serde_json::Error;

/// Appends `value` to `out`.
///
/// # Errors
/// When the value cannot be written as JSON; facts always can.
pub fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    value.serialize(&mut Slim { out, kept: false })
}

struct Slim<'a> {
    out: &'a mut Vec<u8>,
    /// The value just written has to stay, whatever it looks like.
    kept: bool,
}

impl Slim<'_> {
    fn display(&mut self, value: impl Display) -> Result<(), Error> {
        write!(self.out, "{value}").map_err(Error::io)
    }

    fn key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Error> {
        let start = self.out.len();
        key.serialize(&mut *self)?;
        // Keys of JSON are text: numbers are quoted.
        if self.out.get(start) != Some(&b'"') {
            self.out.insert(start, b'"');
            self.out.push(b'"');
        }
        self.out.push(b':');
        Ok(())
    }
}

/// A list, map or struct that is being written.
struct Open<'a, 'b> {
    slim: &'a mut Slim<'b>,
    first: bool,
    close: &'static [u8],
}

impl Open<'_, '_> {
    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.slim.out.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.comma();
        value.serialize(&mut *self.slim)
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        let (start, first) = (self.slim.out.len(), self.first);
        self.comma();
        self.slim.key(key)?;
        let value_start = self.slim.out.len();
        self.slim.kept = false;
        value.serialize(&mut *self.slim)?;
        let says_nothing = matches!(
            &self.slim.out[value_start..],
            b"0" | b"null" | b"[]" | b"{}" | b"false"
        );
        if says_nothing && !self.slim.kept {
            self.slim.out.truncate(start);
            self.first = first;
        }
        self.slim.kept = false;
        Ok(())
    }

    fn close(self) -> Result<(), Error> {
        self.slim.out.extend_from_slice(self.close);
        Ok(())
    }
}

impl<'a, 'b> Slim<'b> {
    fn open(&'a mut self, open: u8, close: &'static [u8]) -> Open<'a, 'b> {
        self.out.push(open);
        Open {
            slim: self,
            first: true,
            close,
        }
    }

    fn variant(
        &'a mut self,
        name: &'static str,
        open: u8,
        close: &'static [u8],
    ) -> Result<Open<'a, 'b>, Error> {
        self.out.push(b'{');
        self.key(name)?;
        Ok(self.open(open, close))
    }
}

macro_rules! displayed {
    ($($name:ident $kind:ty),*) => {$(
        fn $name(self, value: $kind) -> Result<(), Error> {
            self.display(value)
        }
    )*};
}

impl<'a, 'b> Serializer for &'a mut Slim<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'a, 'b>;
    type SerializeTuple = Open<'a, 'b>;
    type SerializeTupleStruct = Open<'a, 'b>;
    type SerializeTupleVariant = Open<'a, 'b>;
    type SerializeMap = Open<'a, 'b>;
    type SerializeStruct = Open<'a, 'b>;
    type SerializeStructVariant = Open<'a, 'b>;

    displayed!(
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32,
        serialize_i64 i64, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32,
        serialize_u64 u64
    );

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        if !value.is_finite() {
            return Err(Error::custom("not a finite number"));
        }
        let millionths = (value * 1e6).round();
        self.display(if millionths.is_finite() {
            // Adding zero turns -0 into 0.
            millionths / 1e6 + 0.0
        } else {
            value
        })
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.out, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self)?;
        self.kept = true;
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.out.push(b'{');
        self.key(variant)?;
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a, 'b>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'a, 'b>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'a, 'b>, Error> {
        Ok(self.open(b'[', b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a, 'b>, Error> {
        self.variant(variant, b'[', b"]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a, 'b>, Error> {
        Ok(self.open(b'{', b"}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a, 'b>, Error> {
        Ok(self.open(b'{', b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a, 'b>, Error> {
        self.variant(variant, b'{', b"}}")
    }
}

macro_rules! elements {
    ($($kind:ident $name:ident),*) => {$(
        impl $kind for Open<'_, '_> {
            type Ok = ();
            type Error = Error;
            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }
            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

macro_rules! fields {
    ($($kind:ident),*) => {$(
        impl $kind for Open<'_, '_> {
            type Ok = ();
            type Error = Error;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(key, value)
            }
            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Open<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        self.slim.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.slim)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, Deserialize)]
    #[serde(default)]
    struct Inner {
        a: u64,
        b: Option<u64>,
        c: Vec<u64>,
        d: BTreeMap<u16, u64>,
        e: f64,
        f: bool,
        g: String,
        h: [u64; 2],
    }

    #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, Deserialize)]
    #[serde(default)]
    struct Outer {
        one: Inner,
        some: Option<Inner>,
        list: Vec<Inner>,
        map: BTreeMap<String, Inner>,
    }

    fn inner() -> impl Strategy<Value = Inner> {
        let number = || prop_oneof![Just(0_u64), any::<u64>()];
        let numbers = (number(), prop::option::of(number()));
        let lists = (
            prop::collection::vec(number(), 0..3),
            prop::collection::btree_map(any::<u16>(), number(), 0..3),
        );
        let rest = (0_i64..3, any::<bool>(), "\\PC{0,4}", [number(), number()]);
        (numbers, lists, rest).prop_map(|((a, b), (c, d), (e, f, g, h))| Inner {
            a,
            b,
            c,
            d,
            e: e as f64 / 4.0,
            f,
            g,
            h,
        })
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_filled_in_again(
            one in inner(),
            some in prop::option::of(inner()),
            list in prop::collection::vec(inner(), 0..3),
            map in prop::collection::btree_map("\\PC{0,3}", inner(), 0..3),
        ) {
            let value = Outer { one, some, list, map };
            let mut out = Vec::new();
            write(&value, &mut out).expect("it can be written");
            let read: Outer = serde_json::from_slice(&out).expect("it is JSON");
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn nothing_is_written_as_nothing() {
        let mut out = Vec::new();
        write(&Outer::default(), &mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        assert_eq!(text, r#"{"one":{"g":"","h":[0,0]}}"#);
    }
}
