//! The truth: every value of every row, as a function of the row's number and the seed.
//!
//! It knows arithmetic and words. It must not know files or Parquet: the writer asks it, and so do the tests that
//! compare. Both keys can be inverted, so that the row of a key is found without a search.

/// Consecutive rows' ids are this far apart, plus or minus their jitter: two of three numbers are no key.
pub(super) const ID_STRIDE: u64 = 3;
/// User names are 48 bits in hex.
const USER_BITS: u32 = 48;
/// The largest of them.
pub(super) const USER_MASK: u64 = (1 << USER_BITS) - 1;
/// Odd multipliers permute the numbers of 48 bits.
const USER_FACTORS: [u64; 2] = [0x9E37_79B9_7F4B, 0xC2B2_AE3D_27D5];
/// 2020-01-01T00:00:00Z in microseconds.
const FIRST_CREATED_MICROS: i64 = 1_577_836_800_000_000;
/// A new row about every 37 seconds.
const CREATED_STEP_MICROS: u64 = 37_000_000;
/// Most elements of `tags`.
pub(super) const MAX_TAGS: u64 = 5;

pub(super) const CITIES: [&str; 24] = [
    "Amsterdam",
    "Athens",
    "Belgrade",
    "Bergen",
    "Bilbao",
    "Bologna",
    "Bratislava",
    "Bruges",
    "Cracow",
    "Dublin",
    "Ghent",
    "Graz",
    "Helsinki",
    "Leipzig",
    "Lisbon",
    "Ljubljana",
    "Lyon",
    "Malmö",
    "Porto",
    "Riga",
    "Seville",
    "Tartu",
    "Turin",
    "Zürich",
];
const FIRST_NAMES: [&str; 16] = [
    "Ada",
    "Bruno",
    "Clara",
    "Dmitri",
    "Elena",
    "Farid",
    "Greta",
    "Henrik",
    "Ines",
    "Jonas",
    "Katarina",
    "Luca",
    "Marguerite",
    "Nils",
    "Olivia",
    "Pavel",
];
const LAST_NAMES: [&str; 16] = [
    "Andersson",
    "Berger",
    "Costa",
    "Dubois",
    "Eriksen",
    "Ferrari",
    "Garcia",
    "Hofmann",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Oliveira",
    "Petrov",
];
pub(super) const TAGS: [&str; 12] = [
    "beta",
    "blocked",
    "churned",
    "employee",
    "gift",
    "loyal",
    "mobile",
    "newsletter",
    "partner",
    "premium",
    "trial",
    "web",
];

/// One row as it must be read.
#[derive(Clone, Debug, PartialEq)]
pub struct TruthRow {
    /// Its number in the lake, which is not a column.
    pub number: u64,
    /// The integer key.
    pub id: i64,
    /// The string key, in no order.
    pub user: String,
    /// About 24 bytes; one of 20 is null.
    pub name: Option<String>,
    /// One of 24.
    pub city: &'static str,
    /// From 0 to 1,000.
    pub score: f64,
    /// Hundredths: the unscaled value of a decimal(12, 2).
    pub amount: i128,
    /// Microseconds since 1970 in UTC.
    pub created_micros: i64,
    /// From 0 to 65,535.
    pub flags: i32,
    /// True for two of three.
    pub active: bool,
    /// No to five elements; one list of ten is null.
    pub tags: Option<Vec<&'static str>>,
}

/// The columns whose values are drawn, each from a stream of its own.
#[derive(Clone, Copy)]
enum Column {
    Id = 1,
    Name,
    City,
    Score,
    Amount,
    Created,
    Flags,
    Active,
    Tags,
    Place,
}

/// The values of all rows there could be; the lake knows how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    seed: u64,
}

impl Truth {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A whole row.
    pub(super) fn row(&self, number: u64) -> TruthRow {
        let mut user = String::new();
        self.write_user(number, &mut user);
        let mut name = String::new();
        let has_name = self.write_name(number, &mut name);
        TruthRow {
            number,
            id: self.id(number),
            user,
            name: has_name.then_some(name),
            city: self.city(number),
            score: self.score(number),
            amount: self.amount(number),
            created_micros: self.created(number),
            flags: self.flags(number),
            active: self.active(number),
            tags: self.tags(number).map(Iterator::collect),
        }
    }

    /// The only row that can have this `id`.
    pub(super) fn number_of_id(id: i64) -> Option<u64> {
        Some(u64::try_from(id).ok()? / ID_STRIDE)
    }

    /// The only row that can have this `user`.
    pub(super) fn number_of_user(&self, user: &str) -> Option<u64> {
        let scrambled = u64::from_str_radix(user.strip_prefix("u-")?, 16).ok()?;
        Some(self.unscramble(scrambled))
    }

    /// Whether the rows of one pair have changed places between two files.
    pub(super) fn changes_places(&self, pair: u64) -> bool {
        self.draw(pair, Column::Place) & 1 == 1
    }

    /// 64 random bits of a row's column.
    fn draw(&self, number: u64, column: Column) -> u64 {
        mix(self.seed.wrapping_add(mix(number.wrapping_mul(16).wrapping_add(column as u64))))
    }

    #[allow(clippy::cast_possible_wrap)]
    pub(super) fn id(&self, number: u64) -> i64 {
        (number * ID_STRIDE + self.draw(number, Column::Id) % ID_STRIDE) as i64
    }

    pub(super) fn write_user(&self, number: u64, out: &mut String) {
        out.clear();
        out.push_str("u-");
        push_hex(out, self.scramble(number), USER_BITS / 4);
    }

    /// A permutation of the numbers of 48 bits.
    fn scramble(&self, number: u64) -> u64 {
        let mut bits = number ^ (mix(self.seed) & USER_MASK);
        for factor in USER_FACTORS {
            bits = bits.wrapping_mul(factor) & USER_MASK;
            bits ^= bits >> (USER_BITS / 2);
        }
        bits
    }

    /// The number that [`Self::scramble`] turned into this.
    fn unscramble(&self, scrambled: u64) -> u64 {
        let mut bits = scrambled & USER_MASK;
        for factor in USER_FACTORS.into_iter().rev() {
            // A shift by half of the width is its own inverse.
            bits ^= bits >> (USER_BITS / 2);
            bits = bits.wrapping_mul(inverse(factor)) & USER_MASK;
        }
        bits ^ (mix(self.seed) & USER_MASK)
    }

    /// Writes the name, or says that it is null.
    pub(super) fn write_name(&self, number: u64, out: &mut String) -> bool {
        out.clear();
        let bits = self.draw(number, Column::Name);
        if bits.is_multiple_of(20) {
            return false;
        }
        out.push_str(pick(&FIRST_NAMES, bits >> 8));
        out.push(' ');
        out.push_str(pick(&LAST_NAMES, bits >> 16));
        out.push(' ');
        push_hex(out, bits >> 24, 9);
        true
    }

    pub(super) fn city(&self, number: u64) -> &'static str {
        // The smaller of two draws: some cities are much larger than others.
        let bits = self.draw(number, Column::City);
        let cities = CITIES.len() as u64;
        pick(&CITIES, (bits % cities).min((bits >> 32) % cities))
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn score(&self, number: u64) -> f64 {
        // 53 bits are exact in a double.
        (self.draw(number, Column::Score) >> 11) as f64 / (1_u64 << 53) as f64 * 1_000.0
    }

    pub(super) fn amount(&self, number: u64) -> i128 {
        i128::from(self.draw(number, Column::Amount) % 200_000_000) - 100_000_000
    }

    #[allow(clippy::cast_possible_wrap)]
    pub(super) fn created(&self, number: u64) -> i64 {
        let since = number * CREATED_STEP_MICROS + self.draw(number, Column::Created) % CREATED_STEP_MICROS;
        FIRST_CREATED_MICROS.saturating_add_unsigned(since)
    }

    pub(super) fn flags(&self, number: u64) -> i32 {
        i32::from((self.draw(number, Column::Flags) & 0xFFFF) as u16)
    }

    pub(super) fn active(&self, number: u64) -> bool {
        !self.draw(number, Column::Active).is_multiple_of(3)
    }

    pub(super) fn tags(&self, number: u64) -> Option<impl Iterator<Item = &'static str> + use<>> {
        let bits = self.draw(number, Column::Tags);
        let count = bits / 10 % (MAX_TAGS + 1);
        (!bits.is_multiple_of(10)).then(|| (0..count).map(move |element| pick(&TAGS, bits >> (8 * element + 16))))
    }
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the input.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The multiplicative inverse of an odd number modulo 2^64, by Newton's iteration; each step doubles the right bits.
fn inverse(odd: u64) -> u64 {
    // An odd number is its own inverse modulo 8, which gives three bits to start from: 3, 6, 12, 24, 48, 96.
    (0..5).fold(odd, |guess, _| guess.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(guess))))
}

fn pick(words: &'static [&'static str], bits: u64) -> &'static str {
    words[(bits % words.len() as u64) as usize]
}

/// Appends the lowest `digits` hex digits.
fn push_hex(out: &mut String, bits: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = (bits >> (4 * digit)) & 0xF;
        out.push(char::from(b"0123456789abcdef"[nibble as usize]));
    }
}
