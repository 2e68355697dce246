//! An NFS server and what its clients keep: leases, locks, page caches.
//!
//! The server keeps names at once, and bytes when they are committed. A client keeps what it has read
//! and what it has yet to write; it looks again when a file is opened or locked, otherwise only now and
//! then. A lock belongs to the lease of its host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nix::libc;

use super::pages::{PAGE_BYTES, Pages};
use super::state::State;

/// A client believes what it knows of a file or a missing name for so long, in ms.
const ATTRIBUTES_MS: std::ops::Range<u64> = 3_000..60_000;

/// The server of a simulated NFS.
#[derive(Clone, Debug)]
pub struct NfsSettings {
    /// A host that was not heard of for so long may lose its locks, in seconds. A rebooted server
    /// gives its clients the same time to claim their locks back.
    pub lease_s: u64,
    /// Locks whose lease is over are kept until somebody else asks for one of them.
    pub is_courteous: bool,
    /// A world that is broken on purpose: only the file `LOCK` is really locked, everybody who asks for
    /// another lock is told that it is theirs.
    pub locks_only_lock: bool,
    /// Decides everything that a real system leaves open.
    pub seed: u64,
}

impl Default for NfsSettings {
    fn default() -> Self {
        Self {
            lease_s: 15,
            is_courteous: true,
            locks_only_lock: false,
            seed: 0,
        }
    }
}

/// The NFS client of one host.
#[derive(Clone, Debug, Default)]
pub struct HostSettings {
    /// While the server does not answer, calls fail with `EIO` instead of blocking (`soft`).
    pub is_soft: bool,
    /// It writes on after it has lost a lock (`nfs.recover_lost_locks=1`), instead of failing with `EIO`.
    pub ignores_lost_locks: bool,
    /// Hosts that share a number here, not 0, are one client to the server (cloned machines).
    pub shared_identity: u64,
}

/// Bytes of a file that were written through an open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    from: usize,
    to: usize,
    handle: u64,
}

/// What a host knows of a file.
#[derive(Clone, Debug, Default)]
struct Cached {
    pages: Pages,
    present: BTreeSet<usize>,
    /// Not sent yet.
    dirty: Vec<Written>,
    /// Sent, and lost if the server reboots now.
    uncommitted: Vec<Written>,
    /// The server's version when the host looked last.
    change: Option<u64>,
    looks_again_ms: u64,
    /// What could not be written in the background failed with this, and nobody was told yet.
    errno: Option<i32>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    settings: HostSettings,
    is_cut_off: bool,
    is_frozen: bool,
    /// It can speak again, and has not done so yet.
    is_silent: bool,
    renewed_ms: u64,
    /// The server has dropped its locks, and it does not know.
    is_revoked: bool,
    /// The server's boot that it has spoken to.
    boot: u64,
    files: BTreeMap<u64, Cached>,
    /// Names that were not there, and until when it believes so.
    missing: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    None,
    /// As far as the host knows.
    Held,
    Lost,
}

#[derive(Clone, Debug)]
struct Opened {
    host: u64,
    inode: u64,
    lock: Lock,
    /// Its process has closed it or is dead, and the server has not heard of it.
    is_closed: bool,
}

/// The server's memory and that of all hosts.
#[derive(Clone, Debug)]
pub(super) struct Nfs {
    pub(super) settings: NfsSettings,
    pub(super) random: fastrand::Rng,
    hosts: BTreeMap<u64, Client>,
    processes: BTreeMap<u64, u64>,
    opens: BTreeMap<u64, Opened>,
    changes: BTreeMap<u64, u64>,
    /// Files without a name, and the host that removed it: others cannot use them any more.
    removed_by: BTreeMap<u64, u64>,
    boot: u64,
    pub(super) grace_until_ms: u64,
}

impl Default for Nfs {
    fn default() -> Self {
        Self::new(NfsSettings::default())
    }
}

impl Nfs {
    pub(super) fn new(settings: NfsSettings) -> Self {
        Self {
            random: fastrand::Rng::with_seed(settings.seed),
            settings,
            hosts: BTreeMap::new(),
            processes: BTreeMap::new(),
            opens: BTreeMap::new(),
            changes: BTreeMap::new(),
            removed_by: BTreeMap::new(),
            boot: 0,
            grace_until_ms: 0,
        }
    }

    fn lease_ms(&self) -> u64 {
        self.settings.lease_s * 1000
    }

    pub(super) fn add_host(&mut self, host: u64, settings: HostSettings, now_ms: u64) {
        let client = Client {
            settings,
            renewed_ms: now_ms,
            boot: self.boot,
            // Its first words introduce it.
            is_revoked: true,
            ..Client::default()
        };
        self.hosts.insert(host, client);
    }

    pub(super) fn add_process(&mut self, host: u64, process: u64) {
        self.processes.insert(process, host);
    }

    pub(super) fn processes_of(&self, host: u64) -> Vec<u64> {
        let processes = self.processes.iter();
        let theirs = processes.filter(|(_, it)| **it == host);
        theirs.map(|(process, _)| *process).collect()
    }

    /// Everybody is dead and nothing is cached anywhere.
    pub(super) fn forget_hosts(&mut self) {
        self.opens.clear();
        for client in self.hosts.values_mut() {
            client.files.clear();
            client.missing.clear();
        }
        self.grace_until_ms = 0;
    }

    pub(super) fn can_speak(&self, host: u64) -> bool {
        let client = self.hosts.get(&host);
        client.is_some_and(|client| !client.is_cut_off && !client.is_frozen)
    }

    pub(super) fn is_soft(&self, host: u64) -> bool {
        let client = self.hosts.get(&host);
        client.is_some_and(|client| client.settings.is_soft)
    }

    /// From now on its lease is not renewed; it was some time ago for the last time.
    fn fall_silent(&mut self, host: u64, now_ms: u64) {
        if !self.can_speak(host) {
            return;
        }
        let ago = self.random.u64(..self.lease_ms() / 3 + 1);
        if let Some(client) = self.hosts.get_mut(&host) {
            if !client.is_silent {
                client.renewed_ms = client.renewed_ms.max(now_ms.saturating_sub(ago));
            }
            client.is_silent = true;
        }
    }

    fn is_expired(&self, host: u64, now_ms: u64) -> bool {
        self.hosts.get(&host).is_none_or(|client| {
            let silence_ms = now_ms.saturating_sub(client.renewed_ms);
            client.is_silent && silence_ms > self.lease_ms()
        })
    }

    fn changed(&mut self, inode: u64) {
        *self.changes.entry(inode).or_default() += 1;
    }
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Hosts and the server.
impl State {
    pub(super) fn cut_off(&mut self, host: u64, is_cut_off: bool) {
        self.set_speech(host, |client| client.is_cut_off = is_cut_off);
    }

    pub(super) fn freeze_host(&mut self, host: u64, is_frozen: bool) {
        self.set_speech(host, |client| client.is_frozen = is_frozen);
    }

    fn set_speech(&mut self, host: u64, set: impl FnOnce(&mut Client)) {
        self.nfs.fall_silent(host, self.clock_ms);
        if let Some(client) = self.nfs.hosts.get_mut(&host) {
            set(client);
        }
        if self.nfs.can_speak(host) && self.nfs.random.bool() {
            self.contact(host);
        }
    }

    /// A host loses its power: its processes and all that it had not sent are gone. It starts again at
    /// once, and the server hears of it with its first call.
    pub(super) fn crash_host(&mut self, host: u64) {
        let now_ms = self.clock_ms;
        self.nfs.fall_silent(host, now_ms);
        for process in self.nfs.processes_of(host) {
            self.dead.insert(process);
        }
        self.nfs.opens.retain(|_, opened| opened.host != host);
        if let Some(client) = self.nfs.hosts.get_mut(&host) {
            client.files.clear();
            client.missing.clear();
            // A client that starts again introduces itself again, and its old locks go.
            client.is_revoked = true;
            client.is_silent = true;
        }
    }

    /// The server reboots: what was not committed may be gone, and so are the locks until their holders
    /// claim them back.
    pub(super) fn crash_server(&mut self, random: &mut fastrand::Rng) {
        for (id, inode) in &mut self.inodes {
            inode.crash(random);
            *self.nfs.changes.entry(*id).or_default() += 1;
        }
        self.nfs.boot += 1;
        self.nfs.grace_until_ms = self.clock_ms + self.nfs.lease_ms();
        let hosts: Vec<u64> = self.nfs.hosts.keys().copied().collect();
        for host in hosts {
            let is_silent = self.nfs.hosts.get(&host).is_some_and(|it| it.is_silent);
            if self.nfs.can_speak(host) && !is_silent {
                self.contact(host);
            }
        }
    }

    /// What happens when a host speaks to the server: its lease begins anew, it learns what it has
    /// lost, claims its locks back from a rebooted server, and tells what it has closed meanwhile.
    pub(super) fn contact(&mut self, host: u64) {
        let now_ms = self.clock_ms;
        if self.nfs.is_expired(host, now_ms) && !self.nfs.settings.is_courteous {
            self.revoke(host);
        }
        let boot = self.nfs.boot;
        let Some(client) = self.nfs.hosts.get_mut(&host) else {
            return;
        };
        client.renewed_ms = now_ms;
        client.is_silent = false;
        let was_revoked = std::mem::take(&mut client.is_revoked);
        let has_rebooted = std::mem::replace(&mut client.boot, boot) != boot;
        let identity = client.settings.shared_identity;
        if has_rebooted {
            for cached in client.files.values_mut() {
                cached.dirty.append(&mut cached.uncommitted);
            }
        }
        if was_revoked {
            self.drop_locks(host);
        }
        if was_revoked || has_rebooted {
            self.claim(host, !was_revoked && now_ms < self.nfs.grace_until_ms);
        }
        if was_revoked && identity != 0 {
            // To the server its own client has started again.
            let same = |(id, it): (&u64, &Client)| {
                (*id != host && it.settings.shared_identity == identity).then_some(*id)
            };
            let twins: Vec<u64> = self.nfs.hosts.iter().filter_map(same).collect();
            twins.into_iter().for_each(|twin| self.revoke(twin));
        }
        let closed =
            |(handle, it): (&u64, &Opened)| (it.host == host && it.is_closed).then_some(*handle);
        let closed: Vec<u64> = self.nfs.opens.iter().filter_map(closed).collect();
        closed.into_iter().for_each(|handle| self.finish(handle));
    }

    /// The server drops the locks of a host, which does not know it yet.
    fn revoke(&mut self, host: u64) {
        self.drop_locks(host);
        if let Some(client) = self.nfs.hosts.get_mut(&host) {
            client.is_revoked = true;
        }
    }

    fn drop_locks(&mut self, host: u64) {
        let processes = &self.nfs.processes;
        for inode in self.inodes.values_mut() {
            let holder = inode.locked_by;
            if holder.and_then(|it| processes.get(&(it >> 32))) == Some(&host) {
                inode.locked_by = None;
            }
        }
    }

    /// A host looks after its locks when the server does not know them any more.
    fn claim(&mut self, host: u64, is_granted: bool) {
        let Some(client) = self.nfs.hosts.get(&host) else {
            return;
        };
        let ignores = client.settings.ignores_lost_locks;
        for (handle, opened) in &mut self.nfs.opens {
            if opened.host != host || opened.lock != Lock::Held {
                continue;
            }
            let inode = self.inodes.get_mut(&opened.inode);
            let holder = inode.map(|inode| &mut inode.locked_by);
            match holder {
                Some(holder) if *holder == Some(*handle) => {}
                Some(holder @ None) if is_granted || ignores => *holder = Some(*handle),
                _ if ignores => {}
                _ => opened.lock = Lock::Lost,
            }
        }
    }

    /// Frees the locks of a dead process, or of a host that has closed its files.
    pub(super) fn end_process(&mut self, process: u64) {
        let Some(host) = self.nfs.processes.get(&process).copied() else {
            return;
        };
        let theirs = self.nfs.opens.range_mut(process << 32..(process + 1) << 32);
        theirs.for_each(|(_, opened)| opened.is_closed = true);
        if self.nfs.can_speak(host) {
            self.contact(host);
        }
    }

    /// A process closes a file.
    pub(super) fn close(&mut self, handle: u64) {
        let Some(opened) = self.nfs.opens.get_mut(&handle) else {
            return;
        };
        opened.is_closed = true;
        let host = opened.host;
        if self.nfs.can_speak(host) {
            self.contact(host);
        }
    }

    /// The server hears that a file is closed. Mostly all that was written comes first; what a dead
    /// process has left may also come much later, and without its lock.
    fn finish(&mut self, handle: u64) {
        let Some(opened) = self.nfs.opens.get(&handle).cloned() else {
            return;
        };
        let is_dead = self.is_dead(handle >> 32);
        if !(is_dead && self.nfs.random.bool()) {
            while let Ok(true) = self.send(opened.host, opened.inode) {}
            let _ = self.commit(opened.host, opened.inode);
        }
        if let Some(inode) = self.inodes.get_mut(&opened.inode)
            && inode.locked_by == Some(handle)
        {
            inode.locked_by = None;
        }
        self.nfs.opens.remove(&handle);
    }

    /// Sends some of what a host has to write, as its kernel does when it likes.
    pub(super) fn write_back(&mut self, host: u64) {
        if !self.nfs.can_speak(host) {
            return;
        }
        self.contact(host);
        let Some(client) = self.nfs.hosts.get(&host) else {
            return;
        };
        let files: Vec<u64> = client.files.keys().copied().collect();
        for inode in files {
            while self.nfs.random.u8(..4) > 0 && matches!(self.send(host, inode), Ok(true)) {}
        }
    }
}

/// Files.
impl State {
    pub(super) fn opened(&mut self, host: u64, inode: u64, handle: u64) {
        let opened = Opened {
            host,
            inode,
            lock: Lock::None,
            is_closed: false,
        };
        self.nfs.opens.insert(handle, opened);
        self.look_again(host, inode);
    }

    /// What everybody who uses a file of another host has to expect.
    fn check_stale(&self, host: u64, inode: u64) -> io::Result<()> {
        let removed_by = self.nfs.removed_by.get(&inode);
        if !self.inodes.contains_key(&inode) || removed_by.is_some_and(|it| *it != host) {
            return Err(error(libc::ESTALE));
        }
        Ok(())
    }

    /// Whether calls through an open file fail because its lock was lost.
    pub(super) fn check_lock(&self, handle: u64) -> io::Result<()> {
        let Some(opened) = self.nfs.opens.get(&handle) else {
            return Ok(());
        };
        let client = self.nfs.hosts.get(&opened.host);
        if client.is_some_and(|client| client.settings.ignores_lost_locks) {
            return Ok(());
        }
        let holder = self.inodes.get(&opened.inode).and_then(|it| it.locked_by);
        match opened.lock {
            Lock::None => Ok(()),
            Lock::Held if holder == Some(handle) => Ok(()),
            Lock::Held | Lock::Lost => Err(error(libc::EIO)),
        }
    }

    fn cached(&mut self, host: u64, inode: u64) -> &mut Cached {
        let client = self.nfs.hosts.entry(host).or_default();
        client.files.entry(inode).or_default()
    }

    /// Asks the server for the state of a file; what is known of another version is dropped.
    fn look_again(&mut self, host: u64, inode: u64) {
        let change = self.nfs.changes.get(&inode).copied().unwrap_or_default();
        let bytes = self.inodes.get(&inode).map_or(0, |it| it.live.len());
        let looks_again_ms = self.clock_ms + self.nfs.random.u64(ATTRIBUTES_MS);
        let cached = self.cached(host, inode);
        cached.looks_again_ms = looks_again_ms;
        if cached.change != Some(change) {
            cached.change = Some(change);
            let own = cached.dirty.iter().chain(&cached.uncommitted);
            let own_end = own.clone().map(|it| it.to).max().unwrap_or(0);
            let kept: BTreeSet<usize> = own.flat_map(Written::pages).collect();
            cached.present = kept;
            cached.pages.resize(bytes.max(own_end));
        }
    }

    /// Whether a read can be answered by the host itself.
    pub(super) fn knows(&mut self, host: u64, inode: u64, from: usize, len: usize) -> bool {
        let now_ms = self.clock_ms;
        let cached = self.cached(host, inode);
        let to = from.saturating_add(len).min(cached.pages.len());
        let mut pages = from / PAGE_BYTES..to.div_ceil(PAGE_BYTES);
        now_ms < cached.looks_again_ms && pages.all(|page| cached.present.contains(&page))
    }

    /// Gets from the server what a read needs.
    pub(super) fn fetch(
        &mut self,
        host: u64,
        inode: u64,
        handle: u64,
        range: std::ops::Range<usize>,
    ) -> io::Result<()> {
        self.check_stale(host, inode)?;
        self.check_lock(handle)?;
        let now_ms = self.clock_ms;
        if now_ms >= self.cached(host, inode).looks_again_ms {
            self.look_again(host, inode);
        }
        let (Some(inode_of), Some(client)) =
            (self.inodes.get(&inode), self.nfs.hosts.get_mut(&host))
        else {
            return Err(error(libc::ESTALE));
        };
        let cached = client.files.entry(inode).or_default();
        let to = range.end.min(cached.pages.len());
        for page in range.start / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
            if cached.present.insert(page) {
                cached.pages.share(&inode_of.live, page);
            }
        }
        Ok(())
    }

    /// The length as the host knows it.
    pub(super) fn known_len(&mut self, host: u64, inode: u64) -> usize {
        self.cached(host, inode).pages.len()
    }

    pub(super) fn read_known(
        &mut self,
        host: u64,
        inode: u64,
        from: usize,
        out: &mut [u8],
    ) -> usize {
        let cached = self.cached(host, inode);
        let from = from.min(cached.pages.len());
        let n = out.len().min(cached.pages.len() - from);
        cached
            .pages
            .read(from, out.get_mut(..n).unwrap_or_default());
        n
    }

    /// Writes into the host's cache. The pages that are written in part are known.
    pub(super) fn write_known(
        &mut self,
        host: u64,
        inode: u64,
        handle: u64,
        from: usize,
        data: &[u8],
    ) {
        let to = from + data.len();
        let cached = self.cached(host, inode);
        if cached.pages.len() < to {
            cached.pages.resize(to);
        }
        cached.pages.write(from, data);
        let written = Written { from, to, handle };
        cached.present.extend(written.pages());
        match cached.dirty.last_mut() {
            Some(last) if last.handle == handle && last.to == from => last.to = to,
            _ => cached.dirty.push(written),
        }
    }

    /// Sends one piece of what a host has written to a file; `false` when there is none.
    pub(super) fn send(&mut self, host: u64, inode: u64) -> io::Result<bool> {
        let count = self.cached(host, inode).dirty.len();
        if count == 0 {
            return Ok(false);
        }
        let which = self.nfs.random.usize(..count);
        let piece = self.cached(host, inode).dirty.remove(which);
        let checked = self
            .check_stale(host, inode)
            .and_then(|()| self.check_lock(piece.handle))
            .and_then(|()| {
                let old = self.inodes.get(&inode).map_or(0, |it| it.live.len());
                self.may_grow(old, piece.to)
            });
        if let Err(error) = checked {
            // What cannot be written is gone, and the next sync says so.
            let cached = self.cached(host, inode);
            cached.dirty.retain(|it| it.handle != piece.handle);
            cached.errno = error.raw_os_error();
            return Err(error);
        }
        let mut data = vec![0; piece.to - piece.from];
        let cached = self.cached(host, inode);
        cached.pages.read(piece.from, &mut data);
        cached.uncommitted.push(piece);
        if let Some(it) = self.inodes.get_mut(&inode) {
            let old = it.live.len();
            if old < piece.to {
                it.live.resize(piece.to);
                it.mark(old, piece.to);
            }
            it.live.write(piece.from, &data);
            it.mark(piece.from, piece.to);
        }
        self.own_change(host, inode);
        Ok(true)
    }

    /// A change by a host itself does not make what it knows doubtful.
    fn own_change(&mut self, host: u64, inode: u64) {
        let before = self.nfs.changes.get(&inode).copied().unwrap_or_default();
        self.nfs.changed(inode);
        let cached = self.cached(host, inode);
        if cached.change == Some(before) {
            cached.change = Some(before + 1);
        }
    }

    /// What a sync has to say of earlier writes.
    pub(super) fn check_written(&mut self, host: u64, inode: u64, handle: u64) -> io::Result<()> {
        self.check_lock(handle)?;
        self.cached(host, inode)
            .errno
            .take()
            .map_or(Ok(()), |errno| Err(error(errno)))
    }

    /// Makes durable what was sent.
    pub(super) fn commit(&mut self, host: u64, inode: u64) -> io::Result<()> {
        self.check_stale(host, inode)?;
        let lies = self.lies;
        if let Some(it) = self.inodes.get_mut(&inode)
            && !lies
        {
            it.durable = it.live.clone();
            it.dirty.clear();
        }
        self.cached(host, inode).uncommitted.clear();
        Ok(())
    }

    /// Sets the length at the server, at once and for good.
    pub(super) fn set_len(
        &mut self,
        host: u64,
        inode: u64,
        handle: u64,
        len: usize,
    ) -> io::Result<()> {
        self.check_stale(host, inode)?;
        self.check_lock(handle)?;
        if let Some(it) = self.inodes.get_mut(&inode) {
            it.live.resize(len);
            it.durable.resize(len);
        }
        self.own_change(host, inode);
        let cached = self.cached(host, inode);
        cached.pages.resize(len);
        cached.dirty.retain_mut(|it| it.clip(len));
        cached.uncommitted.retain_mut(|it| it.clip(len));
        Ok(())
    }

    /// A lock that is asked for, or looked at, is taken from a host whose lease is over.
    fn holder_of(&mut self, inode: u64) -> Option<u64> {
        let holder = self.inodes.get(&inode)?.locked_by?;
        let host = self.nfs.processes.get(&(holder >> 32)).copied();
        match host {
            Some(host) if self.nfs.is_expired(host, self.clock_ms) => {
                self.revoke(host);
                None
            }
            _ => Some(holder),
        }
    }

    pub(super) fn lock_file(&mut self, handle: u64, is_lock: bool) -> io::Result<bool> {
        let Some(Opened { host, inode, .. }) = self.nfs.opens.get(&handle).cloned() else {
            return Err(error(libc::EBADF));
        };
        self.check_stale(host, inode)?;
        if self.nfs.settings.locks_only_lock && !is_lock {
            return Ok(true);
        }
        if self.holder_of(inode).is_some_and(|holder| holder != handle) {
            return Ok(false);
        }
        if let Some(it) = self.inodes.get_mut(&inode) {
            it.locked_by = Some(handle);
        }
        if let Some(opened) = self.nfs.opens.get_mut(&handle) {
            opened.lock = Lock::Held;
        }
        // A lock is a promise of fresh bytes.
        let cached = self.cached(host, inode);
        cached.change = None;
        self.look_again(host, inode);
        Ok(true)
    }

    pub(super) fn is_locked_by_other(&mut self, handle: u64, inode: u64) -> bool {
        let holder = self.holder_of(inode);
        !self.hides_locks && holder.is_some_and(|holder| holder != handle)
    }
}

/// Names.
impl State {
    /// Whether the host still believes that a name is not there.
    pub(super) fn is_known_missing(&self, host: u64, name: &str) -> bool {
        let client = self.nfs.hosts.get(&host);
        let until_ms = client.and_then(|client| client.missing.get(name));
        until_ms.is_some_and(|until_ms| self.clock_ms < *until_ms)
    }

    pub(super) fn note_missing(&mut self, host: u64, name: &str) {
        let until_ms = self.clock_ms + self.nfs.random.u64(ATTRIBUTES_MS);
        if let Some(client) = self.nfs.hosts.get_mut(&host) {
            client.missing.insert(name.to_owned(), until_ms);
        }
    }

    /// The host has looked at the directory.
    pub(super) fn directory_seen(&mut self, host: u64) {
        if let Some(client) = self.nfs.hosts.get_mut(&host) {
            client.missing.clear();
        }
    }

    /// The host has changed the directory: that is durable, and a file may have no name any more.
    pub(super) fn directory_changed(&mut self, host: u64, unnamed: Option<u64>) {
        self.directory_seen(host);
        self.durable_names.clone_from(&self.names);
        if let Some(inode) = unnamed
            && !self.names.values().any(|named| *named == inode)
        {
            self.nfs.removed_by.insert(inode, host);
            self.forget(inode);
        }
    }

    /// The length of a file in a listing: what the host knows of a file is not asked again.
    pub(super) fn listed_len(&mut self, host: u64, inode: u64) -> usize {
        let now_ms = self.clock_ms;
        let known = self
            .nfs
            .hosts
            .get(&host)
            .and_then(|it| it.files.get(&inode));
        match known {
            Some(cached) if now_ms < cached.looks_again_ms => cached.pages.len(),
            _ => self.inodes.get(&inode).map_or(0, |it| it.live.len()),
        }
    }
}

impl Written {
    fn pages(&self) -> std::ops::Range<usize> {
        self.from / PAGE_BYTES..self.to.div_ceil(PAGE_BYTES)
    }

    /// What is left of it in a file that was cut; `false` when nothing is.
    fn clip(&mut self, len: usize) -> bool {
        self.to = self.to.min(len);
        self.from < self.to
    }
}
