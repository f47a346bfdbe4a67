-- How values stand in a CSV file.

-- Text that a spreadsheet would take for a formula begins with an apostrophe, which shows it as the text it is.
CREATE OR REPLACE MACRO csv_text(value) AS
    CASE WHEN regexp_matches(value, '^[=+\-@\t\r\n＝＋－＠]') THEN '''' || value ELSE value END;

-- A time as RFC 3339 text in UTC; the session's time zone must be UTC.
CREATE OR REPLACE MACRO csv_time(value) AS
    strftime(value, '%Y-%m-%dT%H:%M:%S')
    || CASE WHEN date_part('us', value) % 1000000 = 0 THEN '' ELSE strftime(value, '.%f') END || 'Z';

-- What is nested, as JSON text.
CREATE OR REPLACE MACRO csv_json(value) AS CAST(to_json(value) AS VARCHAR);
