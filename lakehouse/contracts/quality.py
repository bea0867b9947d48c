"""Contracts of `quality`: what was not believed, what was delivered, what the codes mean, and how good the forecasts were."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Date, Float64, Instant, Int32, Int64, Table, Text, column


class Quarantine(Table):
    """Delivered rows that are in no cleaned table, each with the reason."""

    name = "quality/quarantine"
    key = ("feed", "delivery_date", "file", "line", "meter_id", "register", "interval_start", "rule")
    partitioned_by = ("feed", "date")

    feed: Text = column("The feed that delivered the row.")
    file: Text = column("Name of the landed file.")
    line: Int64 = column("Line of the file; 0 where the whole file is meant.", ge=0)
    delivery_date: Date = column("Day on which the file was delivered.")
    rule: Text = column("The rule that refused the row; see quality/codes.")
    reason: Text = column("What was expected and what was found.")
    raw_text: Text = column("The row as delivered, at most 1,000 characters.", nullable=True)
    meter_id: Text = column("The meter, where the row names one.", nullable=True)
    register: Text = column("The register, where the row names one.", nullable=True)
    interval_start: Instant = column("Start of the interval, where it could be read.", unit="UTC", nullable=True)
    interval_minutes: Int32 = column("Length of the interval, where it could be read.", unit="min", nullable=True)
    energy_kwh: Float64 = column("Energy as delivered, where it could be read.", unit="kWh", nullable=True)
    date: Date = column("UTC day of the interval; the delivery date where the row has none.")


class Codes(Table):
    """What each quality code and rule means."""

    name = "quality/codes"
    key = ("code",)

    code: Text = column("Quality code or rule name as it stands in the tables.")
    kind: Text = column("quality, validation, estimation or parsing.", isin=("quality", "validation", "estimation", "parsing"))
    description: Text = column("What it means.")  # type: ignore[assignment]  # the column; Table's method stays
    action: Text = column("What happens to the reading: kept, estimated, edited, superseded or quarantined.")
    source: Text = column("Where the rule comes from.", nullable=True)


class Deliveries(Table):
    """The ledger of landing: one row per delivered file that raw has read."""

    name = "quality/deliveries"
    key = ("feed", "delivery_date", "file")
    partitioned_by = ("feed", "delivery_date")

    feed: Text = column("The feed.")
    delivery_date: Date = column("Day on which the file was delivered.")
    file: Text = column("Name of the landed file.")
    sha256: Text = column("Fingerprint of the file's bytes.")
    bytes: Int64 = column("Size of the file.", unit="B", ge=0)
    modified_at: Instant = column("When the file was last changed in landing.", unit="UTC")
    rows: Int64 = column("Rows delivered, faulty ones included.", ge=0)
    faulty_rows: Int64 = column("Rows that could not be read.", ge=0)
    first_interval: Instant = column("Start of the earliest interval in the file.", unit="UTC", nullable=True)
    last_interval: Instant = column("Start of the latest interval in the file.", unit="UTC", nullable=True)
    settings: Text = column("Fingerprint of the feed's format and options that it was read with.", nullable=True)
    read_at: Instant = column("When its rows were first read; read again with its delivery, it keeps it.", unit="UTC", nullable=True)


class Conservation(Table):
    """Where every delivered reading went, by feed, file and reading day: nothing disappears."""

    name = "quality/conservation"
    key = ("feed", "delivery_date", "file", "date")
    partitioned_by = ("feed", "date")

    feed: Text = column("The feed.")
    file: Text = column("Name of the landed file.")
    delivery_date: Date = column("Day on which the file was delivered.")
    delivered: Int64 = column("Rows delivered.", ge=0)
    cleaned: Int64 = column("Rows whose value stands in the cleaned table.", ge=0)
    edited: Int64 = column("Rows whose interval is in the cleaned table with another value, and that are kept beside it.", ge=0)
    superseded: Int64 = column("Rows that lost to a later or better reading of the same interval.", ge=0)
    exact_duplicates: Int64 = column("Rows that repeat another one.", ge=0)
    quarantined: Int64 = column("Rows in quality/quarantine.", ge=0)
    is_conserved: Boolean = column("Whether delivered = cleaned + edited + superseded + exact duplicates + quarantined.")
    missing_past_days: Int64 = column(
        "Days before it by which it is judged that were delivered and not cleaned, or lacked such days themselves, when it was cleaned.",
        nullable=True,
        ge=0,
    )
    date: Date = column("UTC day of the interval; the delivery date for rows without one.")


class VeeReport(Table):
    """What validation, estimation and editing found: one row per meter, register and UTC day."""

    name = "quality/vee_report"
    key = ("meter_id", "register", "date")
    partitioned_by = ("date",)

    meter_id: Text = column("The meter, as the utility names it.")
    register: Text = column("Channel of the meter.")
    expected: Int64 = column("Intervals that the meter should have on that day.", ge=0)
    delivered: Int64 = column("Rows delivered.", ge=0)
    measured: Int64 = column("Intervals whose value stands as delivered.", ge=0)
    edited: Int64 = column("Intervals whose value was put right from what was delivered.", ge=0)
    estimated: Int64 = column("Intervals whose value was estimated.", ge=0)
    missing: Int64 = column("Expected intervals that have no value at all: no estimate was possible or allowed.", ge=0)
    superseded: Int64 = column("Rows that lost to a later or better reading.", ge=0)
    exact_duplicates: Int64 = column("Rows that repeat another one.", ge=0)
    quarantined: Int64 = column("Rows that were not believed or could not be read.", ge=0)
    findings: Text = column("Rules that fired with their number of intervals or rows, as a JSON object.", nullable=True)
    energy_kwh: Float64 = column("Energy of the day, estimates included.", unit="kWh", nullable=True)
    estimated_kwh: Float64 = column("Energy of the day that was estimated or edited.", unit="kWh", nullable=True)
    mean_kw: Float64 = column("Mean power over the measured intervals.", unit="kW", nullable=True)
    peak_kw: Float64 = column("Highest power of a measured interval.", unit="kW", nullable=True)
    zero_share: Float64 = column("Share of the measured intervals with no energy.", nullable=True, ge=0, le=1)
    repeat_share: Float64 = column("Share of the measured, non-zero intervals that repeat the one before.", nullable=True, ge=0, le=1)
    longest_zero_hours: Float64 = column("Longest run of measured intervals with no energy.", unit="h", nullable=True, ge=0)
    lone_peak_kw: Float64 = column("Highest power of a measured interval above the larger of its neighbours.", unit="kW", nullable=True)
    hours_with_zeros: Int32 = column(
        "UTC hours with a measured interval of no energy, as bits: 1 for the hour from 0:00, 2 from 1:00, …", nullable=True
    )
    date: Date = column("UTC day.")


class Edits(Table):
    """Every interval whose value is not what was delivered first: what it was, what it is, why, and since when."""

    name = "quality/edits"
    key = ("meter_id", "register", "interval_start", "was_kwh", "rule", "since_delivery", "file")
    partitioned_by = ("date",)

    meter_id: Text = column("The meter, as the utility names it.")
    register: Text = column("Channel of the meter.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    was_kwh: Float64 = column(
        "The value as it was delivered; for register_difference, as it was estimated before the register's was known.", unit="kWh"
    )
    is_kwh: Float64 = column("The value that stands now.", unit="kWh")
    rule: Text = column("The rule that refused or edited it; superseded where another delivery won.")
    method: Text = column("How the new value was made; missing where it was delivered.", nullable=True)
    since_delivery: Date = column("Delivery since which the new value stands.")
    file: Text = column("File of that delivery.")
    date: Date = column("UTC day of the interval.")


class ForecastAccuracy(Table):
    """How good issued forecasts were, once the actuals were there: one row per target, series, model, issue and measure."""

    name = "quality/forecast_accuracy"
    key = ("target", "series_id", "model", "issued_at")
    partitioned_by = ("target",)

    target: Text = column("demand, wind, solar or price.")
    series_id: Text = column("The series.")
    model: Text = column("The model; seasonal_naive and operator stand beside it for comparison.")
    issued_at: Instant = column("Issue time of the forecast.", unit="UTC")
    intervals: Int64 = column("Intervals that have an actual.", ge=0)
    mae: Float64 = column("Mean absolute error, in the series' unit.")
    rmse: Float64 = column("Root mean squared error, in the series' unit.")
    mape_pct: Float64 = column("Mean absolute percentage error over intervals whose actual is not zero.", unit="%", nullable=True)
    wape_pct: Float64 = column("Sum of absolute errors over sum of absolute actuals.", unit="%", nullable=True)
    pinball: Float64 = column("Mean pinball loss over the quantiles, in the series' unit.", nullable=True)
    coverage_80_pct: Float64 = column(
        "Share of actuals between p10 and p90, where the two differ (not in solar's nights).", unit="%", nullable=True
    )
    is_fallback: Boolean = column("Whether any of the forecast came from a fallback.")


class ForecastBreakdown(Table):
    """Where issued forecasts are good and where not: the same scores by lead day, local hour, weekday and month."""

    name = "quality/forecast_breakdown"
    key = ("target", "series_id", "model", "dimension", "bucket")
    partitioned_by = ("target",)

    target: Text = column("demand, wind, solar or price.")
    series_id: Text = column("The series.")
    model: Text = column("The model; seasonal_naive and operator stand beside it for comparison.")
    dimension: Text = column("What the issues are divided by.", isin=("all", "lead_day", "hour", "weekday", "month"))
    bucket: Text = column("The part: all; 1 for the day after the issue; 00 to 23; 1 for Monday; 2026-03; by the local clock.")
    intervals: Int64 = column("Intervals that have an actual.", ge=0)
    mae: Float64 = column("Mean absolute error, in the series' unit.")
    rmse: Float64 = column("Root mean squared error, in the series' unit.")
    bias: Float64 = column("Mean of forecast less actual, in the series' unit.")
    mape_pct: Float64 = column("Mean absolute percentage error over intervals whose actual is not zero.", unit="%", nullable=True)
    wape_pct: Float64 = column("Sum of absolute errors over sum of absolute actuals.", unit="%", nullable=True)
    rmae: Float64 = column("MAE over the seasonal naive's on the same intervals: below 1 is better.", nullable=True)
    mase: Float64 = column("MAE over the seasonal naive's on all actuals before the first issue.", nullable=True)
    pinball: Float64 = column("Mean pinball loss over the quantiles, in the series' unit.", nullable=True)
    crps: Float64 = column("Continuous ranked probability score from the quantiles, in the series' unit.", nullable=True)
    coverage_80_pct: Float64 = column(
        "Share of actuals between p10 and p90, where the two differ (not in solar's nights).", unit="%", nullable=True
    )
    peak_error_h: Float64 = column(
        "Mean distance between the forecast and the actual peak of a day; none by hour.", unit="h", nullable=True
    )


class Alerts(Table):
    """What people were told: one row per alert, open ones and those that are over."""

    name = "quality/alerts"
    key = ("kind", "subject", "since")

    kind: Text = column("What sort of thing happened, such as 'data late'.")
    subject: Text = column("What it is about: a feed, a target, a step.")
    severity: Text = column("error where today's forecast or plan is wrong or missing, else warning.", isin=("warning", "error"))
    what: Text = column("What happened.")
    remedy: Text = column("What to do.")
    since: Instant = column("When it began.", unit="UTC")
    told_at: Instant = column("When it was last told; missing while no channel took it.", unit="UTC", nullable=True)
    told: Text = column("The channels that were told, separated by commas.")
    closed_at: Instant = column("When it was seen to be over; missing while it is open.", unit="UTC", nullable=True)
    told_over: Text = column("The channels that need not be told any more that it is over, separated by commas.")


class Housekeeping(Table):
    """How large each table is, and what the last housekeeping removed."""

    name = "quality/housekeeping"
    key = ("table",)

    table: Text = column("Name of the table.")
    looked_at: Instant = column("When the table was cleaned.", unit="UTC")
    version: Int64 = column("Its version afterwards.", ge=0)
    rows: Int64 = column("Rows of the newest version.", ge=0)
    files: Int64 = column("Files of the newest version.", ge=0)
    bytes: Int64 = column("Size of these files.", unit="B", ge=0)
    most_files_of_a_partition: Int64 = column("Files of the partition that has most; many small ones make reading slow.", ge=0)
    removed_files: Int64 = column("Files that no kept version uses, removed.", ge=0)
    seconds: Float64 = column("How long it took.", unit="s", ge=0)
