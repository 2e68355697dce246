//! Who may use which command. What would make somebody an administrator, by whatever way, only those may do who could
//! do it openly.

use std::net::IpAddr;

use super::Result;
use crate::admin::{Failure, Need, Object, Request, Verb};
use crate::config::{Kind, Parameter, parameter};
use crate::model::{ADMIN_GROUP, ADMIN_USER, Access, AdminRight, Directory, Pattern};

/// Who asks.
pub(super) struct Caller<'a> {
    pub(super) user: Option<&'a str>,
    /// The user was proved.
    pub(super) is_verified: bool,
    /// Where the client is; `None`: it is gone already.
    pub(super) address: Option<IpAddr>,
}

/// Whether the user may. `server`: the name of the server, which is that of the user as which its peer logs in.
pub(super) fn check(
    directory: &Directory,
    server: &str,
    caller: &Caller<'_>,
    request: &Request,
) -> Result<()> {
    if !directory.authorization {
        // A client that has gone as soon as it had asked has no address any more: it may have been anywhere.
        let mut address = caller.address.iter();
        if address.any(|address| address.to_canonical().is_loopback()) {
            return Ok(());
        }
        let text = "without authorization a server is administered from its own host only; connect \
                    there, or enable authorization";
        return Err(Failure::new(403, text));
    }
    let Some(user) = caller.user.filter(|_| caller.is_verified) else {
        let text = "administration needs a user: connect with --user and --password-file";
        return Err(Failure::new(401, text));
    };
    let access = &directory.access;
    let groups = access.groups_of(user);
    let has_right = |right| access.has_right(user, &groups, right);
    let denied = |what: &str| {
        let text = format!("the user `{user}` has not the right {what}");
        Err(Failure::new(403, text))
    };
    let arguments = &request.arguments;
    let is_own_password = request.command.object == Object::Password && arguments.name(0) == user;
    match request.command.need {
        _ if request.command.object == Object::Password => {
            if !is_own_password && !has_right(AdminRight::ChangeUser) {
                return denied(AdminRight::ChangeUser.word());
            }
        }
        Need::Nothing => {}
        Need::Right(right) => {
            if !has_right(right) {
                return denied(right.word());
            }
        }
        Need::Destination(action) => {
            let kind = request.command.object.destination();
            let pattern = Pattern::parse(arguments.name(0)).map_err(Failure::usage)?;
            let may =
                kind.is_some_and(|kind| access.allowed(user, &groups, action, kind, &pattern));
            if !may {
                return denied(&format!("{} for `{pattern}`", action.word()));
            }
        }
    }
    match reach(request, access, server) {
        Reach::Administrators if !is_administrator(access, user) => {
            denied("to change this; only administrators have it")
        }
        Reach::Rights if !is_own_password && !has_right(AdminRight::ChangeAdminAcl) => {
            denied(&format!(
                "{}, and `{}` has rights of administrators, which would change hands",
                AdminRight::ChangeAdminAcl.word(),
                arguments.name(0)
            ))
        }
        _ => Ok(()),
    }
}

/// Whether somebody changes his own password who may change no other: then he has to know the old one, for he may
/// be somebody who has found the connection of another.
pub(super) fn needs_old_password(
    directory: &Directory,
    caller: &Caller<'_>,
    request: &Request,
) -> bool {
    let is_password = request.command.object == Object::Password && directory.authorization;
    let user = caller.user.filter(|_| is_password);
    user.is_some_and(|user| {
        let groups = directory.access.groups_of(user);
        let may_change_any = directory
            .access
            .has_right(user, &groups, AdminRight::ChangeUser);
        !may_change_any
    })
}

/// What a change amounts to besides what it is.
enum Reach {
    /// Nothing more.
    Itself,
    /// Somebody may get single rights of administrators.
    Rights,
    /// Somebody may become an administrator, or speak as the other server.
    Administrators,
}

fn reach(request: &Request, access: &Access, server: &str) -> Reach {
    let arguments = &request.arguments;
    let name = arguments.name(0);
    let (is_all, has_rights) = match (request.command.verb, request.command.object) {
        _ if !request.command.is_change() => return Reach::Itself,
        // Administrators may be among them.
        (Verb::DeleteAll, Object::User | Object::Group) => (true, false),
        (_, Object::User | Object::Password) => {
            let groups = access.groups_of(name);
            let is_granted = access.admin_grants.iter().any(|grant| {
                // What everybody has is nothing to win.
                let (word, own) = grant.principal.parts();
                match word {
                    "USER" => own == name,
                    _ => own != crate::model::ALL_GROUP && groups.contains(&own),
                }
            });
            (name == server || is_administrator(access, name), is_granted)
        }
        (_, Object::Group | Object::Member) => {
            let mut grants = access.admin_grants.iter();
            let has_rights = grants.any(|grant| grant.principal.parts() == ("GROUP", name));
            (name == ADMIN_GROUP, has_rights)
        }
        (Verb::Set, Object::Server) => {
            let mut settings = arguments.settings.iter();
            let is_grave =
                settings.any(|(name, _)| parameter(name).is_some_and(decides_who_may_what));
            (is_grave, false)
        }
        _ => return Reach::Itself,
    };
    match (is_all, has_rights) {
        (true, _) => Reach::Administrators,
        (false, true) => Reach::Rights,
        (false, false) => Reach::Itself,
    }
}

/// Whether whoever may set a parameter could permit everything to himself: switch the checks off, have other files
/// read, or have the server write to a file of his choice.
fn decides_who_may_what(row: &Parameter) -> bool {
    let is_named = matches!(row.name, "authorization" | "server")
        || row.name.starts_with("ssl_")
        || row.name.starts_with("ft_ssl_");
    is_named || matches!(row.kind, Kind::File | Kind::Secret)
}

fn is_administrator(access: &Access, user: &str) -> bool {
    user == ADMIN_USER || access.groups_of(user).contains(&ADMIN_GROUP)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::admin::parse_line;
    use crate::config::companions::read_anyway;
    use crate::config::{Given, MainFile, load_anyway};

    const ACL: &str = "ADMIN USER=root2 PERM=all\nADMIN GROUP=rich PERM=shutdown\n\
                       ADMIN USER=clerk PERM=change-user,change-group,change-server,change-acl\n\
                       ADMIN GROUP=all PERM=view-server\n";
    const GROUPS: &str = "$admin:\"\"\n  boss\nrich:\"\"\n  ann\npoor:\"\"\n  bob\n";

    fn directory(authorization: bool) -> Directory {
        let file = MainFile {
            path: "a.conf".into(),
            text: "server = EMS-SERVER\n".to_owned(),
        };
        let (config, _) = load_anyway(&Given {
            file: Some(file),
            ..Given::default()
        });
        let (files, report) = read_anyway(&config, &|path: &Path| match path.to_str() {
            Some("groups.conf") => Ok(GROUPS.as_bytes().to_vec()),
            Some("acl.conf") => Ok(ACL.as_bytes().to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        });
        assert_eq!(report.faults, []);
        assert_eq!(files.groups.items().len(), 3);
        assert_eq!(files.acl.items().len(), 4);
        files.directory(authorization)
    }

    fn status(directory: &Directory, caller: &Caller<'_>, line: &str) -> u16 {
        let request = parse_line(line).expect("a command");
        let checked = check(directory, "EMS-SERVER", caller, &request);
        checked.err().map_or(200, |failure| failure.status)
    }

    fn user(name: &str) -> Caller<'_> {
        Caller {
            user: Some(name),
            is_verified: true,
            address: None,
        }
    }

    #[test]
    fn without_authorization_only_a_client_that_is_seen_to_be_here_administers() {
        let directory = directory(false);
        let at = |address: Option<&str>| Caller {
            user: Some(ADMIN_USER),
            is_verified: false,
            address: address.map(|text| text.parse().expect("an address")),
        };
        for (address, expected) in [
            (Some("127.0.0.1"), 200),
            (Some("::1"), 200),
            (Some("::ffff:127.0.0.1"), 200),
            (Some("192.0.2.1"), 403),
            (None, 403),
        ] {
            let found = status(&directory, &at(address), "shutdown");
            assert_eq!(found, expected, "{address:?}");
        }
    }

    #[test]
    fn nobody_becomes_an_administrator_by_lesser_rights() {
        let directory = directory(true);
        for (line, expected) in [
            ("set password bob x", 200),
            ("set user bob password=x", 200),
            ("create user EMS-SERVER password=x", 403),
            ("set password EMS-SERVER x", 403),
            ("set password admin x", 403),
            ("set password boss x", 403),
            ("set password root2 x", 403),
            ("set user root2 password=x", 403),
            ("delete user root2", 403),
            ("set password ann x", 403),
            ("add member poor clerk", 200),
            ("add member rich clerk", 403),
            ("add member $admin clerk", 403),
            ("delete group rich", 403),
            ("delete all users", 403),
            ("grant admin user=clerk all", 403),
            ("set server max_connections=7", 200),
            ("set server authorization=disabled", 403),
            ("set server max_connections=7 users=/tmp/users.conf", 403),
            ("set server logfile=/tmp/x", 403),
            ("set server password=x", 403),
            ("set server ssl_use_cert_username=enabled", 403),
        ] {
            assert_eq!(status(&directory, &user("clerk"), line), expected, "{line}");
            for mighty in ["boss", ADMIN_USER] {
                assert_eq!(status(&directory, &user(mighty), line), 200, "{line}");
            }
        }
        // Their own passwords are theirs.
        assert_eq!(
            status(&directory, &user("root2"), "set password root2 x"),
            200
        );
        assert_eq!(status(&directory, &user("ann"), "set password ann x"), 200);
        assert_eq!(status(&directory, &user("ann"), "set password bob x"), 403);
        let claimed = Caller {
            is_verified: false,
            ..user("admin")
        };
        assert_eq!(status(&directory, &claimed, "show state"), 401);
    }
}
