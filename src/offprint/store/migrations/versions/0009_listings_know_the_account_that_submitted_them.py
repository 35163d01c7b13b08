"""Listings know the account that submitted them: an imported one may have the handle of a reader who is another.

Until now the handle alone told. What is there goes to the account that has the handle, as it did so far.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

WHERE = sa.text("account_id IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("listings") as table:
        table.add_column(sa.Column("account_id", sa.Integer()))
        table.create_foreign_key("listings_account", "accounts", ["account_id"], ["id"], ondelete="SET NULL")
    op.execute(
        "UPDATE listings SET account_id = (SELECT accounts.id FROM accounts WHERE accounts.handle = listings.submitter)"
        " WHERE submitter IN (SELECT handle FROM accounts)"
    )
    op.create_index("listings_by_account", "listings", ["account_id"], sqlite_where=WHERE, postgresql_where=WHERE)


def downgrade() -> None:
    """Undo."""
    op.drop_index("listings_by_account", "listings")
    with op.batch_alter_table("listings") as table:
        table.drop_constraint("listings_account", "foreignkey")
        table.drop_column("account_id")
