//! The checkpoint file: a redb database of one epoch, written by its owner alone.
//!
//! It only makes recovery short; the log can rebuild all of it. So a predecessor's file is read
//! into memory and never touched, every row carries a checksum (redb does not verify its pages
//! when it reads), and whatever is wrong with the file leads to a rebuild from the log.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError,
};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::rows::{Loader, Meta, TABLES, Table, TableRow};
use crate::state::State;

/// Memory that redb may use for its pages: a checkpoint touches few of them.
const CACHE_BYTES: usize = 16 << 20;

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Segments => "segments",
        Table::Chunks => "chunks",
        Table::Queues => "queues",
        Table::User => "user",
    })
}

fn row_crc(table: Table, key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// redb's file on the store's disk.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        if self.file.read_at(offset, out)? == out.len() {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_bytes(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_at(offset, data)
    }
}

/// A copy of a file in memory, so that opening it (which repairs) changes nothing on disk. Once it is
/// shut, every access fails.
#[derive(Debug)]
struct Copy(Mutex<Option<Vec<u8>>>);

impl Copy {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        // A destructor of redb that reads a damaged page while a panic unwinds would panic again, and
        // that ends the process.
        if std::thread::panicking() {
            return Err(io::Error::other("what reads this copy has failed"));
        }
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bytes) => act(bytes),
            None => Err(io::Error::other("this copy is not used any more")),
        }
    }

    fn shut(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn place(offset: u64, len: usize) -> std::ops::Range<usize> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    from..from.saturating_add(len)
}

/// redb's hold on a copy.
#[derive(Debug)]
struct CopyBackend(Arc<Copy>);

impl StorageBackend for CopyBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.with(|bytes| Ok(bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.with(|bytes| {
            let found = bytes.get(place(offset, out.len()));
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.0.with(|bytes| {
            bytes.resize(len, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.with(|_| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.with(|bytes| {
            let found = bytes.get_mut(place(offset, data.len()));
            found
                .ok_or(io::ErrorKind::UnexpectedEof)?
                .copy_from_slice(data);
            Ok(())
        })
    }
}

/// Somebody's checkpoint, opened in memory.
struct Opened {
    database: Database,
    copy: Arc<Copy>,
}

impl Opened {
    fn of(bytes: Vec<u8>) -> Result<Self, DatabaseError> {
        let copy = Arc::new(Copy(Mutex::new(Some(bytes))));
        let mut builder = Builder::new();
        // The copy is memory already, and what redb kept of it could be read after it is shut.
        builder.set_cache_size(0);
        let database = builder.create_with_backend(CopyBackend(Arc::clone(&copy)))?;
        Ok(Self { database, copy })
    }
}

impl Drop for Opened {
    /// redb ends with a commit, for which it reads pages that nobody has looked at; on a damaged file
    /// that panics in destructors. With the copy shut it finds an error instead.
    fn drop(&mut self) {
        self.copy.shut();
    }
}

/// The checkpoint file of the running epoch.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    name: String,
    database: Mutex<Option<Database>>,
}

impl CheckpointFile {
    /// Names the file; it is created by the first write.
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            database: Mutex::new(None),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes rows in one durable step. The first write of an epoch must bring all rows. It goes into
    /// a file with a temporary name: one that an earlier failure left stays until there is a better.
    pub(crate) fn write(&self, disk: &dyn Disk, rows: &[TableRow]) -> io::Result<()> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = database.as_ref() {
            return write_rows(database, rows);
        }
        let temporary = format!("{}.tmp", self.name);
        let make = || -> io::Result<Database> {
            let file = disk.open(&temporary, OpenMode::CreateEmpty)?;
            if !file.try_lock()? {
                return Err(io::Error::other(
                    "the checkpoint file is locked by another server",
                ));
            }
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES);
            let created = builder
                .create_with_backend(Backend { file })
                .map_err(io::Error::other)?;
            write_rows(&created, rows)?;
            disk.rename(&temporary, &self.name)?;
            disk.sync_dir()?;
            Ok(created)
        };
        *database = Some(make().inspect_err(|_| {
            let _ = disk.remove(&temporary);
        })?);
        Ok(())
    }
}

fn write_rows(database: &Database, rows: &[TableRow]) -> io::Result<()> {
    let mut write = database.begin_write().map_err(io::Error::other)?;
    // Without this a kill leads to a repair that reads the whole file.
    write.set_quick_repair(true);
    for table in TABLES {
        let mut open = write
            .open_table(definition(table))
            .map_err(io::Error::other)?;
        for row in rows.iter().filter(|row| row.table == table) {
            match &row.value {
                Some(value) => {
                    let mut stored = value.clone();
                    stored.extend_from_slice(&row_crc(table, &row.key, value));
                    open.insert(row.key.as_slice(), stored.as_slice())
                        .map_err(io::Error::other)?;
                }
                None => {
                    open.remove(row.key.as_slice()).map_err(io::Error::other)?;
                }
            }
        }
    }
    write.commit().map_err(io::Error::other)
}

/// A row as stored: table, key, value.
pub(crate) type LoadedRow = (Table, Vec<u8>, Vec<u8>);

/// The state of somebody's checkpoint file, through a copy in memory. The text says why the file cannot be used.
pub(crate) fn load(disk: &dyn Disk, name: &str) -> Result<(State, Meta), String> {
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(name, OpenMode::Read)?;
        let len = usize::try_from(file.bytes()?).map_err(io::Error::other)?;
        crate::disk::read_range(file.as_ref(), 0, len)
    };
    let bytes = read().map_err(|error| format!("{name}: {error}"))?;
    load_bytes(bytes).map_err(|reason| format!("{name}: {reason}"))
}

/// The state in the bytes of a checkpoint file.
pub(crate) fn load_bytes(bytes: Vec<u8>) -> Result<(State, Meta), String> {
    let mut loader = Loader::default();
    each_row(bytes, &mut |table, key, value| {
        loader.add(table, key, value)
    })?;
    loader.finish()
}

type TakeRow<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), String> + 'a;

/// Reads all rows of the bytes of a checkpoint file.
fn each_row(bytes: Vec<u8>, take: &mut TakeRow<'_>) -> Result<(), String> {
    // redb may panic on a file that was damaged from outside. What was taken by then is not used.
    let attempt = catch_unwind(AssertUnwindSafe(|| rows_of(bytes, take)));
    attempt.unwrap_or_else(|_| Err("the database library gave up on it".to_owned()))
}

fn rows_of(bytes: Vec<u8>, take: &mut TakeRow<'_>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let opened = Opened::of(bytes).map_err(|error| text(&error))?;
    let read = opened.database.begin_read().map_err(|error| text(&error))?;
    for table in TABLES {
        let open = match read.open_table(definition(table)) {
            Ok(open) => open,
            Err(TableError::TableDoesNotExist(_)) => {
                return Err("no checkpoint was taken".to_owned());
            }
            Err(error) => return Err(text(&error)),
        };
        for row in open.iter().map_err(|error| text(&error))? {
            let (key, value) = row.map_err(|error| text(&error))?;
            let (key, stored) = (key.value(), value.value());
            let at = stored.len().checked_sub(4);
            let Some((value, crc)) = at.and_then(|at| stored.split_at_checked(at)) else {
                return Err(format!("a row of {table:?} is cut short"));
            };
            if row_crc(table, key, value) != crc {
                return Err(format!("the checksum of a row of {table:?} differs"));
            }
            take(table, key, value)?;
        }
    }
    Ok(())
}

/// The rows of a damaged checkpoint file that can still be read and whose checksum holds; which ones
/// are missing nobody can tell.
pub(crate) fn load_readable(disk: &dyn Disk, name: &str) -> Vec<LoadedRow> {
    let found = Mutex::new(Vec::new());
    let attempt = AssertUnwindSafe(|| -> Result<(), Box<dyn std::error::Error>> {
        let file = disk.open(name, OpenMode::Read)?;
        let len = usize::try_from(file.bytes()?)?;
        let bytes = crate::disk::read_range(file.as_ref(), 0, len)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let opened = Opened::of(bytes)?;
        let read = opened.database.begin_read()?;
        for table in TABLES {
            let Ok(open) = read.open_table(definition(table)) else {
                continue;
            };
            for row in open.iter()? {
                let Ok((key, stored)) = row else { break };
                let (key, stored) = (key.value(), stored.value());
                let at = stored.len().saturating_sub(4);
                let (value, crc) = stored.split_at(at);
                if row_crc(table, key, value) == crc {
                    let row = (table, key.to_vec(), value.to_vec());
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push(row);
                }
            }
        }
        Ok(())
    });
    // redb may panic on such a file; what was read before that is good.
    let _ = catch_unwind(attempt);
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimWorld;

    fn all_rows(bytes: Vec<u8>) -> Result<Vec<LoadedRow>, String> {
        let mut rows = Vec::new();
        each_row(bytes, &mut |table, key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(rows)
    }

    fn row(key: &[u8], value: Option<&[u8]>) -> TableRow {
        TableRow {
            table: Table::User,
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn two_chunks_of_settled_bits_share_a_page() {
        let world = SimWorld::new();
        let disk = world.process();
        let file = CheckpointFile::new("index.redb".to_owned());
        let chunk = |number: u32| TableRow {
            table: Table::Chunks,
            key: [7_u64.to_be_bytes().as_slice(), &number.to_be_bytes()].concat(),
            value: Some(vec![0x55; crate::bits::CHUNK_BYTES]),
        };
        let rows: Vec<_> = (0..4_000).map(chunk).collect();
        file.write(&disk, &rows).unwrap();
        let bytes = world.bytes_of("index.redb").unwrap().len();
        assert!(bytes < 4_000 * 3_000, "{bytes} bytes");
    }

    #[test]
    fn rows_are_read_from_a_file_that_its_owner_never_closed() {
        let world = SimWorld::new();
        let disk = world.process();
        let file = CheckpointFile::new("index.redb".to_owned());
        file.write(&disk, &[row(b"a", Some(b"1")), row(b"b", Some(b"2"))])
            .unwrap();
        file.write(&disk, &[row(b"b", None), row(b"c", Some(b"3"))])
            .unwrap();
        let before = world.bytes_of("index.redb").unwrap();
        let rows = all_rows(world.bytes_of("index.redb").unwrap()).unwrap();
        let keys: Vec<_> = rows
            .iter()
            .map(|(_, key, value)| (key.as_slice(), value.as_slice()))
            .collect();
        assert_eq!(keys, [(&b"a"[..], &b"1"[..]), (b"c", b"3")]);
        assert_eq!(
            world.bytes_of("index.redb").unwrap(),
            before,
            "reading changed the file"
        );
    }

    #[test]
    fn a_damaged_file_never_gives_a_changed_row() {
        let world = SimWorld::new();
        let disk = world.process();
        let file = CheckpointFile::new("index.redb".to_owned());
        file.write(&disk, &[row(b"key", Some(&[7; 100]))]).unwrap();
        let good = world.bytes_of("index.redb").unwrap();
        let mut refused = 0;
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            match all_rows(bad) {
                Ok(rows) => {
                    for (_, key, value) in rows {
                        assert_eq!(
                            (key.as_slice(), value.as_slice()),
                            (&b"key"[..], &[7; 100][..])
                        );
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0);
        assert!(all_rows(Vec::new()).is_err());
        assert!(all_rows(vec![0xa5; 8192]).is_err());
    }

    /// redb reads more pages when it closes a file than when rows are read from it, and panics in
    /// destructors where they are damaged.
    #[test]
    fn a_page_that_only_closing_reads_ends_no_process() {
        let world = SimWorld::new();
        let disk = world.process();
        let file = CheckpointFile::new("index.redb".to_owned());
        for commit in 0..6_u8 {
            let rows: Vec<TableRow> = (0..50)
                .map(|key| row(&[key], Some(&[commit; 200])))
                .collect();
            file.write(&disk, &rows).unwrap();
        }
        let good = world.bytes_of("index.redb").unwrap();
        let mut whole = 0;
        // What a page begins with says how the rest is to be read.
        let heads = (0..good.len()).filter(|at| at % 4096 < 256 && good[*at] != 0);
        for at in heads {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            match all_rows(bad) {
                Ok(rows) => {
                    assert_eq!(rows.len(), 50);
                    whole += 1;
                }
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
        assert!(whole > 0);
    }
}
