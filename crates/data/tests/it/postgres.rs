//! A real PostgreSQL on a Unix socket in a temporary folder; `cargo xtask setup` installs its programs.

use std::fmt::Write;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow_array::cast::AsArray;
use data::postgres::{
    Connector, Database, Password, PasswordPlace, PostgresError, PostgresParameters, Relation, Stream, request_tls,
};
use data::sql::sums::Sum;
use data::{DataError, Inputs, Scan, Source, refusal};
use protocol::ColumnKind::{self, Integer, Real, Text};
use protocol::statistic::{Column, Input};
use protocol::{Category, Expression, Level, RefusalCode};

use crate::Folder;
use crate::nifti::testdata;
use crate::omop::{PERSONS, cohort, sum};

const PASSWORD: &str = "correct horse";

/// A server that stops when no test needs it any more.
struct Server {
    folder: Folder,
    programs: PathBuf,
    /// PostgreSQL does not run as root: then it runs as nobody.
    user: Option<u32>,
}

static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());

fn server() -> Arc<Server> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start());
        *running = Arc::downgrade(&server);
        server
    })
}

/// The folder of the newest PostgreSQL, which Debian keeps out of the path.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.map(|version| version.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.pop().expect("the tests need PostgreSQL; `cargo xtask setup` installs it")
}

impl Server {
    fn start() -> Self {
        let user = is_root().then_some(65_534);
        let server = Self { folder: Folder::new(), programs: programs(), user };
        let path = server.folder.path();
        let password = server.folder.write("password", PASSWORD);
        if let Some(user) = user {
            chown(path, Some(user), Some(user)).unwrap();
            chown(&password, Some(user), Some(user)).unwrap();
        }
        let data = path.join("data");
        server.run(
            "initdb",
            &[
                "-D",
                data.to_str().unwrap(),
                "-U",
                "owner",
                "--auth=scram-sha-256",
                "--pwfile",
                password.to_str().unwrap(),
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
        );
        let options = format!("-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off", path.display());
        server.run(
            "pg_ctl",
            &["-D", data.to_str().unwrap(), "-w", "-s", "-o", &options, "-l", path.join("log").to_str().unwrap(), "start"],
        );
        server.load();
        server
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(self.folder.path()).env("PGPASSWORD", PASSWORD).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        // The server keeps the pipes of the one who starts it: files do not wait for it.
        let errors = self.folder.path().join(format!("{program}.err"));
        let status = self.command(program, arguments).stderr(std::fs::File::create(&errors).unwrap()).status().unwrap();
        assert!(status.success(), "{program}: {}", std::fs::read_to_string(errors).unwrap());
    }

    fn sql(&self, script: &str) {
        let path = self.folder.write("script.sql", script);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let socket = self.folder.path().to_str().unwrap();
        // psql reads the test data's files itself, as whoever runs the tests.
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-h",
                socket,
                "-U",
                "owner",
                "-d",
                "postgres",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-f",
                path.to_str().unwrap(),
            ])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn load(&self) {
        let mut script = String::from(
            "CREATE TABLE edges (id int, i bigint, r double precision, t text, b boolean, d date, n numeric);\n\
             INSERT INTO edges VALUES (1, 9007199254740993, 1.5, 'b', true, '2020-02-29', 0.1), (2, -3, 'NaN', 'B', false, NULL, 2),\n\
             (3, NULL, 'Infinity', '', NULL, '1999-01-01', NULL), (4, 0, 0, NULL, true, '2020-01-01', -7.25), (5, 7, -4, 'a''b', true, NULL, 'NaN');\n\
             CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO edges (id) VALUES (99) RETURNING id';\n",
        );
        for site in ["site_a", "site_b", "site_c"] {
            write!(
                script,
                "CREATE SCHEMA {site};\n\
                 CREATE TABLE {site}.person (person_id bigint, gender_concept_id bigint, year_of_birth int, race_concept_id bigint, ethnicity_concept_id bigint);\n\
                 CREATE TABLE {site}.condition_occurrence (condition_occurrence_id bigint, person_id bigint, condition_concept_id bigint, condition_start_date date);\n\
                 CREATE TABLE {site}.drug_exposure (drug_exposure_id bigint, person_id bigint, drug_concept_id bigint, drug_exposure_start_date date);\n\
                 CREATE TABLE {site}.measurement_synthetic (measurement_id bigint, person_id bigint, measurement_concept_id bigint, measurement_date date, value_as_number numeric);\n"
            )
            .unwrap();
            for table in ["person", "condition_occurrence", "drug_exposure", "measurement_synthetic"] {
                let file = testdata("omop").join(site).join(format!("{table}.csv"));
                writeln!(script, "\\copy {site}.{table} FROM '{}' CSV HEADER", file.display()).unwrap();
            }
        }
        self.sql(&script);
    }

    fn connector(&self) -> Connector {
        let path = self.folder.path().join(".s.PGSQL.5432");
        Arc::new(move || connect(&path).map(|stream| Box::new(stream) as Box<dyn Stream>))
    }

    fn parameters(&self, rows: Relation) -> PostgresParameters {
        PostgresParameters {
            server: self.folder.path().join(".s.PGSQL.5432").to_str().unwrap().to_owned().try_into().unwrap(),
            database: "postgres".to_owned(),
            user: "owner".to_owned(),
            password: None,
            tls: data::postgres::Tls::Off,
            statement_timeout_s: 60,
            rows,
        }
    }

    fn database(&self, rows: Relation) -> Database {
        self.limited(rows, 60)
    }

    fn limited(&self, rows: Relation, statement_timeout_s: u32) -> Database {
        let parameters = PostgresParameters { statement_timeout_s, ..self.parameters(rows) };
        Database::new(parameters, Some(Password::new(PASSWORD.into())), self.connector())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _ = self.command("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "-s", "-w", "stop"]).status();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test opens its own server's socket; the node opens it through the network matrix"
)]
fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

fn table(name: &str) -> Relation {
    Relation::Table { schema: None, name: name.to_owned().try_into().unwrap() }
}

fn query(text: &str) -> Relation {
    Relation::Query(text.to_owned().try_into().unwrap())
}

#[test]
fn a_table_is_read_with_kinds_and_missing_cells() {
    let server = server();
    let database = server.database(table("edges"));
    let scan = database.scan().unwrap();
    let kinds: Vec<ColumnKind> = scan.schema.columns().iter().map(|column| column.kind).collect();
    assert_eq!(kinds, [Integer, Integer, Real, Text, Integer, Text, Real]);
    // What is no finite number is missing.
    assert_eq!((scan.rows, scan.missing.clone()), (5, vec![0, 1, 2, 1, 1, 2, 2]));
    let source = database.open(&scan);
    let batch = source.batches(&["d", "b", "i"]).unwrap().next().unwrap().unwrap();
    assert_eq!(
        batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["2020-02-29", "1999-01-01", "2020-01-01"]
    );
    assert_eq!(batch.column(2).as_primitive::<arrow_array::types::Int64Type>().value(0), 9_007_199_254_740_993);
}

#[test]
fn a_cohort_is_the_same_as_that_of_the_files() {
    let server = server();
    for site in ["site_a", "site_b", "site_c"] {
        for definition in [PERSONS, WINDOWS] {
            let parameters = data::Parameters::Omop(data::omop::OmopParameters { cohort: cohort(definition) });
            let description = crate::describe(&testdata("omop").join(site), parameters);
            let files_scan = data::scan(&description, None, &crate::GO_ON).unwrap();
            let files = data::open(&description, &files_scan).unwrap();
            let schema = Some(site.to_owned().try_into().unwrap());
            let database = server.database(Relation::Cohort { schema, definition: cohort(definition) });
            let scan = database.scan().unwrap();
            assert_eq!((scan.rows, &scan.schema, &scan.missing), (files_scan.rows, &files_scan.schema, &files_scan.missing));
            let source = database.open(&scan);
            for column in scan.schema.columns() {
                let read = |source: &dyn Source| -> Vec<_> {
                    source.batches(&[&column.name]).unwrap().map(Result::unwrap).collect()
                };
                assert_eq!(read(&source), read(&*files), "{site} {}", column.name);
            }
        }
    }
}

const WINDOWS: &str = r#"
tables = { measurement = "measurement_synthetic" }
[index]
domain = "condition"
concepts = [192671, 40481087]
which = "last"
[columns]
age = { age = "at_index" }
before = { domain = "drug", take = "count", from_days = -365, to_days = 0 }
since = { domain = "drug", concepts = [1118084], take = "days_to_first" }
weight = { domain = "measurement", concepts = [3025315], take = "last", from_days = -3650 }
"#;

#[test]
fn many_rows_come_in_batches() {
    let server = server();
    let database = server.database(query("SELECT g AS x, g::text AS t FROM generate_series(1, 20000) AS g -- a comment"));
    let scan = database.scan().unwrap();
    let source = database.open(&scan);
    let batches: Vec<usize> = source.batches(&["x", "t"]).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!((batches.iter().sum::<usize>(), batches.len()), (20_000, 3));
    assert_eq!(sum(&source, "x"), (200_010_000.0, 20_000));
    let long = server.database(query("SELECT repeat('x', 200000) AS t FROM generate_series(1, 100)"));
    let source =
        long.open(&server.database(query("SELECT repeat('x', 200000) AS t FROM generate_series(1, 100)")).scan().unwrap());
    let batches: Vec<usize> = source.batches(&["t"]).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(batches, [64, 36], "12 MB of texts are no batch of 8 MiB");
}

#[test]
fn nothing_but_one_select_is_run() {
    for text in ["DELETE FROM edges", "SELECT 1; DROP TABLE edges", "", "COPY edges TO PROGRAM 'x'", "select\0"] {
        assert!(data::postgres::Select::try_from(text.to_owned()).is_err(), "{text}");
    }
    let server = server();
    for text in [
        "WITH gone AS (DELETE FROM edges RETURNING id) SELECT id FROM gone",
        "SELECT writes() AS x",
        "SELECT set_config('transaction_read_only', 'off', true) AS x",
        "SELECT id FROM edges FOR UPDATE",
        "SELECT id INTO other FROM edges",
        "SELECT 1 AS x) AS r, writes() AS (y int",
    ] {
        let error = server.database(query(text)).scan().unwrap_err();
        assert!(matches!(error, DataError::Postgres { source: PostgresError::Server { .. }, .. }), "{text}: {error}");
    }
    assert_eq!(server.database(table("edges")).scan().unwrap().rows, 5);
}

#[test]
fn a_slow_or_absent_database_is_unavailable_to_the_other_side() {
    let server = server();
    let slow =
        server.limited(query("SELECT count(*) AS n FROM generate_series(1, 1000000000000) AS g"), 1).scan().unwrap_err();
    assert!(
        matches!(&slow, DataError::Postgres { source: PostgresError::Server { code, .. }, .. } if code == "57014"),
        "{slow}"
    );
    let down =
        Database::new(server.parameters(table("edges")), None, Arc::new(|| Err(io::ErrorKind::ConnectionRefused.into())));
    let down = down.scan().unwrap_err();
    assert!(down.to_string().contains("cannot be reached"), "{down}");
    for error in [slow, down] {
        let refusal = refusal(&error);
        assert_eq!(refusal.code, RefusalCode::Unavailable);
        assert!(!refusal.sentence.contains("PGSQL") && !refusal.sentence.contains("generate_series"));
    }
}

#[test]
fn a_login_needs_the_right_password_and_never_shows_it() {
    let server = server();
    let with = |password: Option<&str>| {
        let password = password.map(|password| Password::new(password.into()));
        Database::new(server.parameters(table("edges")), password, server.connector()).scan()
    };
    assert!(with(Some(PASSWORD)).is_ok());
    let wrong = with(Some("wrong secret")).unwrap_err();
    assert!(
        matches!(&wrong, DataError::Postgres { source: PostgresError::Server { code, .. }, .. } if code == "28P01"),
        "{wrong}"
    );
    assert!(!format!("{wrong:?}").contains("secret") && !format!("{:?}", Password::new("secret".into())).contains("secret"));
    assert!(matches!(with(None).unwrap_err(), DataError::Postgres { source: PostgresError::PasswordMissing, .. }));
    // This server has no certificate: it says that it does not speak TLS.
    assert!(!request_tls(&mut (server.connector())().unwrap()).unwrap());
}

#[test]
fn passwords_are_fetched_from_files_of_the_owner_and_from_the_environment() {
    let folder = Folder::new();
    let path = folder.write("password", "secret\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let place = PasswordPlace::File(path.clone());
    assert!(Password::fetch(&place, &|_| None).unwrap_err().to_string().contains("others can read this file"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Password::fetch(&place, &|_| None).unwrap();
    let variable = PasswordPlace::Environment("PASSWORD".to_owned());
    Password::fetch(&variable, &|name| (name == "PASSWORD").then(|| "secret".to_owned())).unwrap();
    assert!(Password::fetch(&variable, &|_| None).unwrap_err().to_string().contains("\"PASSWORD\""));
}

#[test]
fn unreadable_columns_and_rows_are_named() {
    let server = server();
    let array = server.database(query("SELECT ARRAY[1] AS list")).scan().unwrap_err();
    assert!(array.to_string().contains("column \"list\" has a type (OID 1007)"), "{array}");
    let twice = server.database(query("SELECT 1 AS x, 2 AS x")).scan().unwrap_err();
    assert!(matches!(twice, DataError::ColumnTwice { name } if name == "x"));
    let database = server.database(query("SELECT repeat('x', 6000000) AS long"));
    let scan = database.scan().unwrap();
    let long = database.open(&scan).batches(&["long"]).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(long, DataError::Postgres { source: PostgresError::RowTooLong(_), .. }), "{long}");
    let changed = server.database(query("SELECT 1 AS other")).open(&scan);
    assert!(matches!(changed.batches(&["long"]).err().unwrap(), DataError::Changed { .. }));
}

/// The sums that reading all rows gives.
fn local(source: &dyn Source, input: Input, filter: Option<&Expression>) -> Vec<Column> {
    let inputs = Inputs::new(source.schema(), &[input], filter).unwrap();
    source.batches(&inputs.columns()).unwrap().map(|batch| inputs.read(&batch.unwrap()).columns.remove(0)).collect()
}

#[test]
fn the_database_sums_what_reading_the_rows_sums() {
    let server = server();
    let scan = server.database(table("edges")).scan().unwrap();
    let source = server.database(table("edges")).open(&scan);
    let texts = [
        "i",
        "r",
        "n",
        "b",
        "r + 1",
        "n / r",
        "1 / i",
        "log(i)",
        "log(r)",
        "sqrt(r)",
        "exp(i)",
        "exp(r - 1000)",
        "abs(r)",
        "floor(n)",
        "pow(r, 2)",
        "pow(r, -1)",
        "pow(r, 0.5)",
        "pow(log(exp(r)), 2) - r * -n",
        "i > 9007199254740992",
        "i = 9007199254740993.0",
        "i > -3.5",
        "i < 1e300",
        "i >= -2.5",
        "t = 'b'",
        "t < 'a'",
        "t in ('B', 'a''b')",
        "i in (7, -3, 0.5)",
        "not (r > 0)",
        "r > 0 or i is missing",
        "t is missing",
        "(i > 0) is missing",
        "d >= '2020-01-01'",
        "r > 0 and n > 0",
    ];
    for filter in [None, Some("id != 4"), Some("not (n is missing) or t = 'a''b'")] {
        let filter: Option<Expression> = filter.map(|filter| filter.parse().unwrap());
        let expressions = texts.map(|text| text.parse::<Expression>().unwrap());
        let sums = |expression: &Expression| {
            [Sum::Present(vec![expression.clone()]), Sum::Total(expression.clone()), Sum::Largest(expression.clone())]
        };
        let asked: Vec<Sum> = expressions.iter().flat_map(sums).collect();
        let answered = server.database(table("edges")).sums(&scan.schema, filter.as_ref(), &asked).unwrap();
        for (expression, found) in expressions.into_iter().zip(answered.chunks(3)) {
            let text = expression.to_string();
            let values: Vec<f64> = local(&source, Input::Number(expression), filter.as_ref())
                .into_iter()
                .flat_map(|values| match values {
                    Column::Numbers(numbers) => numbers,
                    Column::Levels(_) => unreachable!("numbers were asked for"),
                })
                .filter(|value| !value.is_nan())
                .collect();
            assert_eq!(found[0], Some(values.len() as f64), "{text}");
            let sum = values.iter().sum::<f64>();
            assert!((found[1].unwrap_or(0.0) - sum).abs() <= 1e-9 * sum.abs(), "{text}: {:?} {sum}", found[1]);
            let largest = values.iter().copied().reduce(f64::max);
            assert!(found[2].is_some() == largest.is_some(), "{text}");
            assert!((found[2].unwrap_or(0.0) - largest.unwrap_or(0.0)).abs() <= 1e-9 * sum.abs(), "{text}");
        }
    }
}

#[test]
fn a_describe_is_pushed_down() {
    let server = server();
    let rows = || Relation::Cohort { schema: Some("site_a".to_owned().try_into().unwrap()), definition: cohort(PERSONS) };
    let scan: Scan = server.database(rows()).scan().unwrap();
    let age = || Expression::column("age_2018");
    let mean = 59.449_704_142_011_83;
    let asked = [
        Sum::Rows,
        Sum::Total(age()),
        Sum::Product { left: (age(), mean), right: (age(), mean) },
        Sum::Smallest(age()),
        Sum::Largest(age()),
        Sum::AtMost(age(), 58.0),
        Sum::Level { column: "man".to_owned(), level: Level::Number(1.0) },
        Sum::Where("gi_bleed = 1 and celecoxib = 1".parse().unwrap()),
        Sum::Magnitude(Expression::column("systolic")),
    ];
    let found = server.database(rows()).sums(&scan.schema, None, &asked).unwrap();
    let found: Vec<f64> = found.into_iter().map(Option::unwrap).collect();
    // reference.json, omop.describe_per_person.numeric.age_2018.sites.site_a, and man.
    assert_eq!((found[0], found[1], found[3], found[4], found[6]), (338.0, 20_094.0, 33.0, 110.0, 166.0));
    assert!((found[2] / 337.0 / 270.337_225_431_496_17 - 1.0).abs() < 1e-9, "{}", found[2]);
    let median = found[5] / 338.0;
    assert!((0.5..0.55).contains(&median), "{median}");
    let category = Category::new("man".to_owned(), vec![Level::Number(1.0)]).unwrap();
    let source = server.database(rows()).open(&scan);
    let codes = local(&source, Input::Levels(category), None);
    let Column::Levels(codes) = &codes[0] else { panic!() };
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 166);
    let unknown = server.database(rows()).sums(&scan.schema, None, &[Sum::Total(Expression::column("agee"))]).unwrap_err();
    assert_eq!(refusal(&unknown).code, RefusalCode::ColumnNotNumeric);
}

#[test]
fn a_dataset_file_describes_a_database() {
    let parameters: PostgresParameters = toml::from_str(
        "server = \"db:5432\"\ndatabase = \"cdm\"\nuser = \"reader\"\npassword = { environment = \"CDM_PASSWORD\" }\n\
         rows = { query = \"SELECT age FROM person;\" }",
    )
    .unwrap();
    assert_eq!((parameters.tls, parameters.statement_timeout_s), (data::postgres::Tls::Verify, 300));
    let wrong = "server = \"[::1]:5432\"\ndatabase = \"x\"\nuser = \"x\"\nrows = { query = \"DROP TABLE person\" }";
    assert!(toml::from_str::<PostgresParameters>(wrong).unwrap_err().to_string().contains("begins with SELECT or WITH"));
}

#[test]
fn a_password_in_a_dataset_file_is_refused_and_not_repeated() {
    let lookup = |_: &str| None;
    let place = data::Place { root: Path::new("/srv"), lookup: &lookup };
    let check = |server: &str, password: &str, message: &str| {
        let json = format!(
            r#"{{"name": "n", "data_type": "postgres", "tags": ["a"], "description": "", "dataset_parameters":
            {{"server": "{server}", "database": "x", "user": "x", "password": {password}, "rows": {{"query": "SELECT 1"}}}}}}"#
        );
        let error = data::Description::from_json(json.as_bytes(), place).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(said.contains(message) && !said.contains("hunter2"), "{said}");
    };
    let place = "`password` says where the password is";
    check("db:5432", "\"hunter2\"", place);
    check("db:5432", "{\"clear\": \"hunter2\"}", place);
    check("db:5432", "{\"hunter2\": 1}", place);
    check("db:5432", "[\"hunter2\"]", place);
    let server = "`server` is `host:port`";
    for url in ["postgres://x:hunter2@db:5432", "x:hunter2@db:5432", "host=db password=hunter2", "db:hunter2", ":1", "db"] {
        check(url, "null", server);
    }
}
