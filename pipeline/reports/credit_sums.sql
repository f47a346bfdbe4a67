-- The lines of credits by all that reports group them by, but for metadata: `credits` of so many `lines`. Beside a large
-- lake their sums are kept (`ledger_credit_sums.sql`); else each row is one line.
SELECT
    resource_kind,
    product,
    basis,
    unknown_why,
    charged_on,
    processor_id,
    processor_name,
    processor_version,
    workspace_id,
    file_type,
    source,
    line = 1 AS is_first,
    is_first_of_product,
    credits,
    1 AS lines
FROM credit_lines
