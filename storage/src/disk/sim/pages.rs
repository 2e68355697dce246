//! The bytes of files in pages that copies of a world share.

use std::sync::Arc;

pub(super) const PAGE_BYTES: usize = 4096;

/// The bytes of a file in pages that copies share; a page of zeros takes no memory.
#[derive(Debug, Default, Clone)]
pub(super) struct Pages {
    pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    len: usize,
}

impl Pages {
    pub(super) fn from_slice(bytes: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.resize(bytes.len());
        pages.write(0, bytes);
        pages
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// New bytes are zero.
    pub(super) fn resize(&mut self, len: usize) {
        if len < self.len
            && let Some(Some(page)) = self.pages.get_mut(len / PAGE_BYTES)
        {
            Arc::make_mut(page)[len % PAGE_BYTES..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        self.len = len;
    }

    /// The part of each page that a range covers: page, offset in it, length.
    pub(super) fn parts(from: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let rest = (from + len).checked_sub(at).filter(|rest| *rest > 0)?;
            let offset = at % PAGE_BYTES;
            let part = (at / PAGE_BYTES, offset, rest.min(PAGE_BYTES - offset));
            at += part.2;
            Some(part)
        })
    }

    /// The range lies within the file.
    pub(super) fn read(&self, from: usize, mut out: &mut [u8]) {
        for (page, offset, len) in Self::parts(from, out.len()) {
            let (head, rest) = out.split_at_mut(len);
            match self.pages.get(page) {
                Some(Some(page)) => head.copy_from_slice(&page[offset..offset + len]),
                _ => head.fill(0),
            }
            out = rest;
        }
    }

    /// Takes over a page of another file, or zeros where that has none.
    pub(super) fn share(&mut self, from: &Self, page: usize) {
        if let Some(place) = self.pages.get_mut(page) {
            *place = from.pages.get(page).cloned().flatten();
        }
    }

    /// The range lies within the file.
    pub(super) fn write(&mut self, from: usize, mut data: &[u8]) {
        for (number, offset, len) in Self::parts(from, data.len()) {
            let (head, rest) = data.split_at(len);
            data = rest;
            let Some(page) = self.pages.get_mut(number) else {
                return;
            };
            if page.is_none() && crate::format::is_zero(head) {
                continue;
            }
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[offset..offset + len].copy_from_slice(head);
        }
    }
}
